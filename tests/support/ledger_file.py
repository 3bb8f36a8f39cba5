"""Looks into a ledger from outside: its file with the database's own client, and the statements that it executes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from harvester.ledger import Ledger

Statement = tuple[str, Any]


def query(path: Path, sql: str, values: Any = ()) -> list[tuple]:
    """Return the rows of a query of the ledger's file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, values).fetchall()


def engines(ledger: Ledger) -> tuple[Engine, Engine]:
    """Return the engine that writes and the one that reports."""
    database = ledger._database
    return database._writes.engine, database._reports.engine


@contextmanager
def recorded_statements(ledger: Ledger) -> Iterator[list[Statement]]:
    """Record the statements of all transactions, with their values."""
    statements: list[Statement] = []

    def record(_connection: object, _cursor: object, sql: str, values: Any, _context: object, many: bool) -> None:  # noqa: FBT001 - SQLAlchemy's
        statements.append((sql, values[0] if many else values))

    for engine in engines(ledger):
        event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        for engine in engines(ledger):
            event.remove(engine, "before_cursor_execute", record)


def explained(path: Path, statements: list[Statement]) -> list[str]:
    """Return the query plan of each statement: one line for each table that it reads."""
    return [
        row[3]
        for sql, values in statements
        if not sql.startswith(("BEGIN", "PRAGMA"))
        for row in query(path, f"EXPLAIN QUERY PLAN {sql}", values)
    ]
