"""What DuckDB computes: the latest view, the last captures, Parquet lists of pairs.

The only package that imports DuckDB. DuckDB's own limit bounds memory; what exceeds it goes to temporary files.
"""

from harvester.datasets.captures import list_last_captures
from harvester.datasets.dialects import Column, ColumnType
from harvester.datasets.latest import WrittenView, find_column_types, write_latest
from harvester.datasets.latest_sql import build_latest_query, run_latest_query
from harvester.datasets.parquet import ParquetFile
from harvester.datasets.part_files import PartFiles
from harvester.datasets.statements import FORMATS, Statement, build_statement

__all__ = [
    "FORMATS",
    "Column",
    "ColumnType",
    "ParquetFile",
    "PartFiles",
    "Statement",
    "WrittenView",
    "build_latest_query",
    "build_statement",
    "find_column_types",
    "list_last_captures",
    "run_latest_query",
    "write_latest",
]
