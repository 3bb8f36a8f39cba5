"""The size of the ledger: bytes of a send with its readings, in a file and in PostgreSQL.

All sends have seven readings, as by default, in parts of 1,000 readings. The size is that of the used pages of the
file, and of the tables and indexes after ``VACUUM FULL``; "The ledger in PostgreSQL" measures how much larger tables
are in use. A ledger keeps a settled send and its readings for ``keep_days`` after its 15 days.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg

from benchmarks.measure.ledger_databases import list_sizes, new_ledger, start_owners
from tests.support.postgresql import PostgreSQL

READINGS = 7


def measure_size(location: str) -> int:
    """Return the bytes of a ledger without free space."""
    if location.startswith("postgresql:"):
        with psycopg.connect(location, autocommit=True) as connection:
            connection.execute("VACUUM FULL")
        return sum(list_sizes(location).values())
    pages = "(SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)"
    with contextlib.closing(sqlite3.connect(location)) as connection:
        (size,) = connection.execute(f"SELECT ({pages}) * page_size FROM pragma_page_size").fetchone()
    return int(size)


def measure_sizes(server: PostgreSQL, database: str, pairs: int) -> Iterator[float]:
    """Yield the bytes of a send before its first reading, and after each."""
    with new_ledger(server, database) as location, start_owners(location, 1) as owners:
        owners.run(f"plan {READINGS}")
        owners.enqueue(pairs)
        yield measure_size(location) / pairs
        for _ in range(READINGS):
            owners.run("advance 1")
            owners.run("capture")
            yield measure_size(location) / pairs


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each number of readings."""
    pairs = 2000 if quick else 50_000
    with contextlib.closing(PostgreSQL({})) as server:
        sizes = {database: list(measure_sizes(server, database, pairs)) for database in ("SQLite", "PostgreSQL")}
    for readings in range(READINGS + 1):
        columns = {f"{database}, bytes per send": each[readings] for database, each in sizes.items()}
        yield "ledger_size", {"readings of each send": readings} | columns
