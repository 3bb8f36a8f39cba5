"""What needs a database for a while: the latest view, Parquet lists of pairs. The door to DuckDB.

Memory is bounded by DuckDB's own limit; what does not fit is put on disk for a while.
"""

from harvester.datasets.captures import last_captures
from harvester.datasets.latest import write_latest
from harvester.datasets.parquet import ParquetFile
from harvester.datasets.printed import latest_query, run_latest_query

__all__ = ["ParquetFile", "last_captures", "latest_query", "run_latest_query", "write_latest"]
