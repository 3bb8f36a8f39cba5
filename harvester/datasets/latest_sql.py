"""The query for users of DuckDB: the latest view and sums over it, one text for docs and commands.

It creates the same view as ``write_latest``. It needs only DuckDB 1.4 or newer, and more memory than ``write_latest``.
"""

from pathlib import Path
from typing import Any

from harvester.datasets.sql import escape_path, quote_text
from harvester.model import DATASET, is_in_object_store

_FILE = Path(__file__).with_name("latest.sql")
_PARTS = f"'harvest/{DATASET}/*/*.ndjson*'"


def build_latest_query(place: str) -> str:
    """Return the query over the parts in a folder or bucket."""
    folder = place if is_in_object_store(place) else escape_path(Path(place))
    return _FILE.read_text().replace(_PARTS, quote_text(f"{folder.rstrip('/')}/{DATASET}/*/*.ndjson*"))


def run_latest_query(place: str) -> str:
    """Run the query in DuckDB as a user would, and return the table that its last statement prints."""
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    with duckdb.connect() as connection:
        found: Any = connection.sql(build_latest_query(place))
        return str(found)
