"""ClickHouse as a library (chDB): table, INSERT from files, ReplacingMergeTree and view."""

import json
import tempfile

from chdb import session
from page import ALL_PARTS, compare_rows, get_block, get_statement, list_parts

with tempfile.TemporaryDirectory() as folder:
    database = session.Session(folder)
    version = str(database.query("SELECT version()")).strip().strip('"')
    create, insert = get_statement("clickhouse", "merge").split(";\n\n")
    database.query(get_statement("clickhouse", "table"))
    database.query(create)
    for part in list_parts():
        database.query(get_block("ClickHouse").replace(ALL_PARTS, part))
        database.query(insert)
        database.query("TRUNCATE TABLE send_analytics")
    assert str(database.query(get_block("ClickHouse", 1)))
    rows = str(database.query("SELECT * FROM send_analytics_latest FINAL", "JSONEachRow")).splitlines()
    compare_rows("ClickHouse", version, map(json.loads, filter(None, rows)))
    database.query("DROP TABLE send_analytics_latest")
    database.query(get_block("ClickHouse"))
    database.query(get_statement("clickhouse", "latest"))
    rows = str(database.query("SELECT * FROM send_analytics_latest", "JSONEachRow")).splitlines()
    compare_rows("ClickHouse, view", version, map(json.loads, filter(None, rows)))
    database.close()
