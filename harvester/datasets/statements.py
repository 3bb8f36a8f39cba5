"""Table definitions for the rows, and the statements that keep the latest of them. Pure.

The statements use only what all dialects have: no QUALIFY, no ``IS NOT DISTINCT FROM``, no ``SELECT * EXCEPT``.
"""

import json
import textwrap
from collections.abc import Sequence
from enum import StrEnum

from harvester.datasets.dialects import DIALECTS, Column, ColumnType, Dialect
from harvester.datasets.latest_view import KEY
from harvester.datasets.staging import TEXT_COLUMNS

UNRECOGNIZED = "unrecognized"
NULLABLE_KEY = ("date", "channel", "variation_name", "variation_api_id")
"""The columns of the key that can be null; their comparison has to accept null."""

FORMATS = (*DIALECTS, "polars", "jsonschema")

_POLARS_TYPES = ("pl.Int64", "pl.Float64", "pl.String")
_JSON_TYPES = ("integer", "number", "string")
_NON_ZERO = '":"?-?[0.]*[1-9]'
"""Finds a number other than 0 in the JSON text of ``unrecognized``."""


class Statement(StrEnum):
    """What to print: the table of the parts, the latest view over it, or how to merge it into a table of the latest."""

    TABLE = "table"
    LATEST = "latest"
    MERGE = "merge"


def build_statement(statement: Statement, kind: str, columns: Sequence[Column], table: str) -> str:
    """Return a statement for one of ``FORMATS``. Raises ``KeyError`` if the format does not have it."""
    if statement is Statement.TABLE and kind == "polars":
        return _build_polars_schema(columns)
    if statement is Statement.TABLE and kind == "jsonschema":
        return _build_json_schema(columns)
    dialect = DIALECTS[kind]
    if statement is Statement.TABLE:
        return _build_table(kind, dialect, columns, table)
    if statement is Statement.LATEST:
        newest = _build_newest_rows(dialect, columns, table)
        return f"CREATE VIEW {table}_latest AS\n{newest};\n"
    if kind == "clickhouse":
        return _build_replacing_table(dialect, columns, table)
    return _build_merge(kind, dialect, columns, table)


def _build_table(kind: str, dialect: Dialect, columns: Sequence[Column], table: str) -> str:
    # A table of Spark is partitioned by a column of its own, which is the name of the folder.
    folder = [Column("captured_date", ColumnType.TEXT)] if kind == "spark" else []
    return f"{dialect.table_start} {table} (\n{dialect.define_columns([*columns, *folder])}\n){dialect.table_end};\n"


def _build_newest_rows(dialect: Dialect, columns: Sequence[Column], source: str) -> str:
    """Return the query for the newest row of each key with a counter other than 0, else the newest row."""
    keys = ", ".join(map(dialect.quote_name, KEY))
    captured_at, batch_id = dialect.quote_name("captured_at"), dialect.quote_name("batch_id")
    return (
        f"SELECT {_list_names(dialect, columns)}\nFROM (\n"  # noqa: S608 - quoted
        f"  SELECT *, row_number() OVER (\n    PARTITION BY {keys}\n    ORDER BY CASE\n"
        f"      WHEN {_build_nonzero_test(dialect, columns)}\n      THEN 0 ELSE 1 END,\n"
        f"      {captured_at} DESC, {batch_id} DESC\n  ) AS newest\n  FROM {source}\n) AS ranked\nWHERE newest = 1"
    )


def _build_nonzero_test(dialect: Dialect, columns: Sequence[Column]) -> str:
    """Return the SQL that tests whether any counter of a row is not 0. It is null or false if none is."""
    tests = []
    for each in columns:
        if each.name == UNRECOGNIZED:
            tests.append(dialect.matches(each.name, _NON_ZERO))
        elif each.name not in TEXT_COLUMNS:
            is_text = each.type is ColumnType.TEXT
            tests.append(dialect.matches(each.name, "[1-9]") if is_text else f"{dialect.quote_name(each.name)} <> 0")
    return "\n        OR ".join(tests)


def _build_merge(kind: str, dialect: Dialect, columns: Sequence[Column], table: str) -> str:
    """Return the statements that create the table of the latest rows, and merge the rows of the parts into it.

    Its result does not depend on the order of the parts, and the same part twice changes nothing.
    """
    latest, names = f"{table}_latest", _list_names(dialect, columns)
    send_id = dialect.quote_name("send_id")
    both = (
        f"(\n    SELECT {names} FROM {table}\n    UNION ALL\n"  # noqa: S608 - quoted
        f"    SELECT {names} FROM {latest}\n    WHERE {send_id} IN (SELECT {send_id} FROM {table})\n  ) AS both_tables"
    )
    newest = _build_newest_rows(dialect, columns, both)
    assignments = ",\n  ".join(f"{name} = s.{name}" for name in _quote_names(dialect, columns))
    values = textwrap.fill(
        ", ".join(f"s.{name}" for name in _quote_names(dialect, columns)), 116, subsequent_indent="    "
    )
    changed = f"t.{dialect.quote_name('batch_id')} <> s.{dialect.quote_name('batch_id')}"
    created = f"CREATE TABLE IF NOT EXISTS {latest} (\n{dialect.define_columns(columns)}\n){dialect.latest_end};\n\n"
    if kind == "redshift":
        return created + _build_replacement(dialect, names, latest, newest)
    return (
        f"{created}MERGE INTO {latest} AS t\nUSING (\n{newest}\n) AS s\nON {_match_keys(dialect, 't')}\n"  # noqa: S608 - quoted
        f"WHEN MATCHED AND {changed} THEN UPDATE SET\n  {assignments}\n"
        f"WHEN NOT MATCHED THEN INSERT ({names})\n  VALUES ({values});\n"
    )


def _build_replacement(dialect: Dialect, names: str, latest: str, newest: str) -> str:
    """Return a transaction that replaces rows. MERGE of Redshift accepts no query and compares no nulls."""
    return (
        "BEGIN;\n"
        f"CREATE TEMP TABLE newest_rows AS\n{newest};\n"
        f"DELETE FROM {latest} USING newest_rows AS s\nWHERE {_match_keys(dialect, latest)};\n"
        f"INSERT INTO {latest} ({names})\nSELECT {names} FROM newest_rows;\n"
        "DROP TABLE newest_rows;\nEND;\n"
    )


def _build_replacing_table(dialect: Dialect, columns: Sequence[Column], table: str) -> str:
    """Return ClickHouse's counterpart of MERGE: a table that keeps the row with the greatest rank of each key."""
    names, latest = _list_names(dialect, columns), f"{table}_latest"
    keys = ", ".join(f"ifNull({dialect.quote_name(name)}, '')" for name in KEY)
    milliseconds = f"toUnixTimestamp64Milli(parseDateTime64BestEffort({dialect.quote_name('captured_at')}, 3, 'UTC'))"
    rank = f"if(ifNull({_build_nonzero_test(dialect, columns)}, 0), {10**14}, 0)\n    + ifNull({milliseconds}, 0)"
    return (
        f"CREATE TABLE IF NOT EXISTS {latest} (\n{dialect.define_columns(columns)},\n"
        f"  newest UInt64 MATERIALIZED {rank}\n)\nENGINE = ReplacingMergeTree(newest)\nORDER BY ({keys});\n\n"
        f"INSERT INTO {latest} ({names})\nSELECT {names} FROM {table};\n"
    )


def _match_keys(dialect: Dialect, target: str) -> str:
    """Return the condition that a row of the target and a row of ``s`` have the same key."""
    tests = []
    for name in KEY:
        left, right = f"{target}.{dialect.quote_name(name)}", f"s.{dialect.quote_name(name)}"
        nullable = name in NULLABLE_KEY
        tests.append(f"({left} = {right} OR {left} IS NULL AND {right} IS NULL)" if nullable else f"{left} = {right}")
    return "\n  AND ".join(tests)


def _quote_names(dialect: Dialect, columns: Sequence[Column]) -> list[str]:
    return [dialect.quote_name(each.name) for each in columns]


def _list_names(dialect: Dialect, columns: Sequence[Column]) -> str:
    """Return the names of the columns, on lines of at most 120 characters."""
    return textwrap.fill(", ".join(_quote_names(dialect, columns)), 116, subsequent_indent="    ")


def _build_polars_schema(columns: Sequence[Column]) -> str:
    members = "".join(f'    "{each.name}": {_POLARS_TYPES[each.type.value]},\n' for each in columns)
    return f"import polars as pl\n\nSCHEMA = {{\n{members}}}\n"


def _build_json_schema(columns: Sequence[Column]) -> str:
    """Return the JSON Schema of one line of a part."""
    required = TEXT_COLUMNS[:12]
    properties = {each.name: {"type": [_JSON_TYPES[each.type.value], "null"]} for each in columns}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A row of send_analytics",
        "type": "object",
        "properties": properties,
        "patternProperties": {"revenue": {"type": ["number", "null"]}},
        "additionalProperties": {"type": ["integer", "null"]},
        "required": list(required),
    }
    return json.dumps(schema, indent=2) + "\n"
