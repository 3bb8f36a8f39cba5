"""The query for users of DuckDB: the latest view, then sums over it, in one text for docs and commands.

It gives the same view as ``write_latest``. It needs only DuckDB 1.4 or newer, and keeps what it reads in memory or in
its database; ``write_latest`` needs less memory.
"""

from pathlib import Path
from typing import Any

from harvester.datasets.sql import one_file, text
from harvester.model import DATASET, in_store

_FILE = Path(__file__).with_name("latest.sql")
_PARTS = f"'harvest/{DATASET}/*/*.ndjson*'"


def latest_query(place: str) -> str:
    """Return the query over the parts in a folder or bucket."""
    folder = place if in_store(place) else one_file(Path(place))
    return _FILE.read_text().replace(_PARTS, text(f"{folder.rstrip('/')}/{DATASET}/*/*.ndjson*"))


def run_latest_query(place: str) -> str:
    """Run the query in DuckDB as a user would, and return what its last statement shows, as a table."""
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    with duckdb.connect() as connection:
        found: Any = connection.sql(latest_query(place))
        return str(found)
