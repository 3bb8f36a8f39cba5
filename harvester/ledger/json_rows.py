"""Rows handed over to the database, and back, as one text, which it packs and unpacks by itself.

Row by row, the driver would take and drop the interpreter's lock for each: the event loop would wait for it a thousand
times a batch, and the driver for the event loop.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    FromClause,
    String,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)  # fmt: skip


def handed_over(connection: Connection, columns: Sequence[Column[Any]], rows: Sequence[Sequence[object]]) -> FromClause:
    """Give rows as a table with the names and types of ``columns``."""
    unpack = {"sqlite": func.json_each, "postgresql": func.json_array_elements}[connection.dialect.name]
    element = unpack(bindparam("rows", orjson.dumps(rows).decode())).table_valued("value").c.value
    fields = (cast(element.op("->>")(literal_column(str(at))), column.type) for at, column in enumerate(columns))
    return select(*(field.label(column.name) for field, column in zip(fields, columns, strict=True))).subquery()


def handed_back(
    connection: Connection, columns: Sequence[ColumnElement[Any]], which: ColumnElement[bool]
) -> list[list[Any]]:
    """Give these columns, none of them null, of the rows ``which``, in no order; floats may come as text."""
    pack, gather = {
        "sqlite": (func.json_array, func.json_group_array), "postgresql": (func.json_build_array, func.json_agg),
    }[connection.dialect.name]  # fmt: skip
    if connection.dialect.name == "sqlite":  # whose JSON keeps 15 digits of a float, where 17 tell it from every other
        columns = [func.printf("%!.17g", each) if isinstance(each.type, Float) else each for each in columns]
    text = connection.execute(select(cast(gather(pack(*columns)), String)).where(which)).scalar_one()
    rows: list[list[Any]] = orjson.loads(text or "[]")
    return rows
