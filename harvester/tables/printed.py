"""The query that a user of DuckDB is given: the latest view, then sums over it, in one text for docs and commands.

It follows the rule of ``write_latest``. It needs no other program than DuckDB 1.4 or newer, and holds what it reads in
memory or in the database it runs in; ``write_latest`` takes less.
"""

from pathlib import Path
from typing import Any

from harvester.model import DATASET, in_store
from harvester.tables.sql import one_file, text

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
