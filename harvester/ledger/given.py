"""Rows handed over to the database as one text, which it unpacks by itself.

Row by row, the driver would take and drop the interpreter's lock for each, and the event loop would wait for it
a thousand times a batch.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Column, Connection, FromClause, bindparam, cast, func, literal_column, select


def handed_over(connection: Connection, columns: Sequence[Column[Any]], rows: Sequence[Sequence[object]]) -> FromClause:
    """Give rows as a table with the names and types of ``columns``."""
    unpack = {"sqlite": func.json_each, "postgresql": func.json_array_elements}[connection.dialect.name]
    element = unpack(bindparam("rows", orjson.dumps(rows).decode())).table_valued("value").c.value
    fields = (cast(element.op("->>")(literal_column(str(at))), column.type) for at, column in enumerate(columns))
    return select(*(field.label(column.name) for field, column in zip(fields, columns, strict=True))).subquery()
