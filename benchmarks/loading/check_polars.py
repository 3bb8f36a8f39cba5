"""Polars: the schema and the code that merges parts into a Parquet file."""

import sys
from pathlib import Path

import polars as pl
from page import ALL_PARTS, compare_rows, get_block, list_parts

sys.path.insert(0, str(Path.cwd()))
Path("latest.parquet").unlink(missing_ok=True)
for part in list_parts():
    exec(get_block("Polars").replace(ALL_PARTS, part))
compare_rows("Polars", pl.__version__, pl.read_parquet("latest.parquet").to_dicts())
Path("latest.parquet").unlink()
exec(get_block("Polars"))
compare_rows("Polars, all parts at once", pl.__version__, pl.read_parquet("latest.parquet").to_dicts())
