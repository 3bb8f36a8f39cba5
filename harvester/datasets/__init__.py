"""What DuckDB computes: the latest view, the last captures, Parquet lists of pairs.

The only package that imports DuckDB. DuckDB's own limit bounds memory; what exceeds it goes to temporary files.
"""

from harvester.datasets.captures import list_last_captures
from harvester.datasets.latest import write_latest
from harvester.datasets.latest_sql import build_latest_query, run_latest_query
from harvester.datasets.parquet import ParquetFile

__all__ = ["ParquetFile", "build_latest_query", "list_last_captures", "run_latest_query", "write_latest"]
