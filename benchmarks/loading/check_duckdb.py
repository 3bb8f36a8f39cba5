"""DuckDB: table, COPY, MERGE and view."""

import duckdb
from page import ALL_PARTS, compare_rows, get_block, get_statement, list_parts

with duckdb.connect() as lake:
    lake.execute(get_statement("duckdb", "table"))
    for part in list_parts():
        lake.execute(get_block("DuckDB").replace(ALL_PARTS, part))
        lake.execute(get_statement("duckdb", "merge"))
        lake.execute("DELETE FROM send_analytics")
    table = lake.execute("FROM send_analytics_latest")
    names = [column[0] for column in table.description]
    compare_rows("DuckDB", duckdb.__version__, [dict(zip(names, row, strict=True)) for row in table.fetchall()])
