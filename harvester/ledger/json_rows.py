"""Passes rows to the database, and back, as one JSON text, which the database parses and encodes.

Row by row, the driver would take and release the interpreter's lock for each row: the event loop and the driver would
wait for each other a thousand times per batch.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    CursorResult,
    Float,
    FromClause,
    Select,
    String,
    bindparam,
    cast,
    literal_column,
    select,
    true,
)

from harvester.ledger.dialect import Dialect


def encode_rows(rows: Sequence[Sequence[object]]) -> dict[str, Any]:
    """Return the value of ``rows_as_table`` in a statement."""
    return {"rows": orjson.dumps(rows).decode()}


def rows_as_table(dialect: Dialect, columns: Sequence[Column[Any]]) -> FromClause:
    """Return a table with the names and types of ``columns``; ``encode_rows`` gives it its rows at execution."""
    text: BindParameter[str] = bindparam("rows", type_=String)
    element = dialect.json_elements(text).table_valued("value").c.value
    fields = (
        cast(element.op("->>")(literal_column(str(at))), String() if isinstance(column.type, String) else column.type)
        for at, column in enumerate(columns)
    )
    rows = select(*(field.label(column.name) for field, column in zip(fields, columns, strict=True)))
    if dialect.single_writer:
        return rows.subquery()
    # A server without statistics of a new table may join by loops, and would parse all rows again in each of them.
    return rows.cte().prefix_with("MATERIALIZED")


def values_as_table(dialect: Dialect, column: Column[Any]) -> FromClause:
    """Return a table of one column; ``encode_values`` gives it its rows at execution."""
    return rows_as_table(dialect, (column,))


def encode_values(values: Iterable[object]) -> dict[str, Any]:
    """Return the value of ``values_as_table`` in a statement."""
    return encode_rows([(each,) for each in values])


def select_as_json(dialect: Dialect, columns: Sequence[ColumnElement[Any]], which: ColumnElement[bool]) -> Select[str]:
    """Select columns, none of them null, of the rows ``which``, in no order; ``decode_rows`` reads the result."""
    exact = [dialect.exact_float(each) if isinstance(each.type, Float) else each for each in columns]
    return select(cast(dialect.json_rows(dialect.json_row(*exact)), String)).where(which)


def select_lists(dialect: Dialect, key: ColumnElement[Any], values: ColumnElement[Any]) -> Select[str]:
    """Select every key with the values of a subquery that is correlated with the key's table, in their order."""
    each = dialect.json_value(select(dialect.json_rows(values)).scalar_subquery())
    return select_as_json(dialect, (key, each), true())


def decode_rows(result: CursorResult[str]) -> list[list[Any]]:
    """Return the rows that ``select_as_json`` or ``select_lists`` selected; floats can be text."""
    rows: list[list[Any]] = orjson.loads(result.scalar_one() or "[]")
    return rows
