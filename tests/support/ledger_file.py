"""Looks into a ledger from outside: its database with the database's own client, and the statements it executes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from harvester.ledger import Ledger
from harvester.place import DatabaseUrl, LedgerLocation
from tests.support.clocks import SettableClock

Statement = tuple[str, Any]

DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.long))
"""The kinds of database that every test of a ledger runs with, see the fixture ``location``.

PostgreSQL costs more, so it is left to the long tests, but for those of races and failures.
"""

only_sqlite = pytest.mark.parametrize("location", ["sqlite"], indirect=True)


def query(location: LedgerLocation, sql: str, values: Any = ()) -> list[tuple]:
    """Return the rows of a query of the ledger's database."""
    if isinstance(location, Path):
        with closing(sqlite3.connect(location)) as connection:
            return connection.execute(sql, values).fetchall()
    import psycopg  # noqa: PLC0415 - most tests need no client of PostgreSQL

    with psycopg.connect(location.url) as connection:
        return connection.execute(sql, values).fetchall()


def execute(location: LedgerLocation, sql: str) -> None:
    """Execute a statement that returns no rows."""
    if isinstance(location, Path):
        with closing(sqlite3.connect(location)) as connection, connection:
            connection.execute(sql)
        return
    import psycopg  # noqa: PLC0415 - most tests need no client of PostgreSQL

    with psycopg.connect(location.url) as connection:
        connection.execute(sql)


def count_rows(location: LedgerLocation) -> dict[str, int]:
    """Count the rows of every table."""
    listed = "SELECT name FROM sqlite_master WHERE type = 'table'"
    if not isinstance(location, Path):
        listed = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return {name: query(location, f"SELECT count(*) FROM {name}")[0][0] for (name,) in query(location, listed)}


def pass_time(location: LedgerLocation, clock: SettableClock, seconds: float) -> None:
    """Advance the clock, and the leases with it: on PostgreSQL they end by the server's time."""
    clock.now += seconds
    if not isinstance(location, Path):
        execute(location, f"UPDATE owner SET alive_until = alive_until - {seconds}")
        execute(location, f"UPDATE service SET served_until = served_until - {seconds}")


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


def explained(location: Path, statements: list[Statement]) -> list[str]:
    """Return the query plan of each statement: one line for each table that it reads."""
    return [
        row[3]
        for sql, values in statements
        if not sql.startswith(("BEGIN", "PRAGMA"))
        for row in query(location, f"EXPLAIN QUERY PLAN {sql}", values)
    ]


LARGE_TABLES = ("pair", "outcome", "batch", "part")


def find_full_scans(location: DatabaseUrl, statements: list[Statement]) -> list[str]:
    """Return the statements that PostgreSQL can execute only by reading all rows of a large table.

    The test needs a few thousand pairs. Without the settings here, reading all of so few would be the best plan. A
    partial index has few rows, and a limit ends a scan.
    """
    import psycopg  # noqa: PLC0415 - most tests need no client of PostgreSQL

    found = []
    with psycopg.connect(location.url) as connection:
        connection.execute("ANALYZE")
        for avoided in ("seqscan", "hashjoin", "mergejoin"):
            connection.execute(f"SET enable_{avoided} = off")
        partial = connection.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")
        few_rows = {name for (name,) in partial.fetchall()}
        for sql, values in statements:
            if sql.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                ((plan,),) = connection.execute(f"EXPLAIN (FORMAT JSON) {sql}", values).fetchall()
                found += [f"{each}: {sql}" for each in _find_full_reads(plan[0]["Plan"], few_rows)]
    return found


def _find_full_reads(plan: dict[str, Any], few_rows: set[str], *, limited: bool = False) -> Iterator[str]:
    kind, table, limited = plan["Node Type"], plan.get("Relation Name"), limited or plan["Node Type"] == "Limit"
    searches = "Index Cond" in plan or plan.get("Index Name") in few_rows or limited
    if (kind == "Seq Scan" and table in LARGE_TABLES) or (table == "pair" and "Index" in kind and not searches):
        yield f"{kind} of {table}"
    for each in plan.get("Plans", ()):
        yield from _find_full_reads(each, few_rows, limited=limited)
