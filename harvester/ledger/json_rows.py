"""Passes rows to the database, and back, as one JSON text, which the database parses and encodes.

Row by row, the driver would take and release the interpreter's lock for each row: the event loop and the driver would
wait for each other a thousand times per batch.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Float,
    FromClause,
    String,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    true,
)

from harvester.ledger.database import Transaction


def rows_as_table(tx: Transaction, columns: Sequence[Column[Any]], rows: Sequence[Sequence[object]]) -> FromClause:
    """Return rows as a table with the names and types of ``columns``."""
    text: BindParameter[str] = bindparam("rows", orjson.dumps(rows).decode())
    element = tx.dialect.json_elements(text).table_valued("value").c.value
    fields = (cast(element.op("->>")(literal_column(str(at))), column.type) for at, column in enumerate(columns))
    return select(*(field.label(column.name) for field, column in zip(fields, columns, strict=True))).subquery()


def select_as_json(
    tx: Transaction, columns: Sequence[ColumnElement[Any]], which: ColumnElement[bool]
) -> list[list[Any]]:
    """Select columns, none of them null, of the rows ``which``, in no order; floats can be text."""
    dialect = tx.dialect
    exact = [dialect.exact_float(each) if isinstance(each.type, Float) else each for each in columns]
    text = tx.execute(select(cast(dialect.json_rows(dialect.json_row(*exact)), String)).where(which)).scalar_one()
    rows: list[list[Any]] = orjson.loads(text or "[]")
    return rows


def select_lists(tx: Transaction, key: ColumnElement[Any], values: ColumnElement[Any]) -> list[tuple[Any, list[Any]]]:
    """Select every key with the values of a subquery that is correlated with the key's table, in their order."""
    each = func.json(select(tx.dialect.json_rows(values)).scalar_subquery())
    return [(name, found) for name, found in select_as_json(tx, (key, each), true())]
