"""PyArrow: all rows of the parts, with stable types."""

import pyarrow as pa
from page import compare_rows, get_block

found: dict[str, pa.Table] = {}
exec(get_block("PyArrow"), found)
compare_rows("PyArrow", pa.__version__, found["rows"].to_pylist(), "rows.ndjson")
