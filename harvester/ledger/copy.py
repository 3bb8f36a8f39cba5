"""Copies a ledger into another database, row by row, because SQLite and PostgreSQL have no common tool.

Until all rows have been compared, the copy has the schema version ``COPYING``, so that no process uses a part of a
ledger. A copy that was interrupted continues. The counts start at the end. The original cannot be used from then on.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Integer, Table, delete, func, insert, select, text, tuple_, union_all, update

from harvester.clock import Clock
from harvester.errors import LedgerError
from harvester.ledger.counts import lift_timeout, start_counting
from harvester.ledger.database import Database, Transaction
from harvester.ledger.migrations import About, create_tables, find_about, get_id
from harvester.ledger.schema import (
    COPYING,
    about,
    batches,
    differences,
    metadata,
    outcome_counts,
    owners,
    paces,
    pair_counts,
    pairs,
    parts,
    plans,
)
from harvester.ledger.sqlite import back_up
from harvester.ledger.steps import MOVED, get_newest_schema, get_oldest_schema
from harvester.place import LedgerLocation

_TABLES = [each for each in metadata.sorted_tables if each not in {about, owners, pair_counts, outcome_counts}]
"""The tables that are copied, a table after those that it refers to. No owner lives when a ledger is copied."""

_PAIR_TABLES = (pairs, plans, differences, paces)

_PAGE_ROWS = 1000
_PAGE_PARTS = 20
"""How many rows are copied in one transaction. Those of parts can contain megabytes."""

Show = Callable[[str], None]
Row = tuple[Any, ...]


async def copy_ledger(source: LedgerLocation, to: LedgerLocation, *, clock: Clock, show: Show) -> int:
    """See ``Ledger.copy``."""
    async with _open(source, clock, read_only=True) as original, _open(to, clock) as copy:
        await _begin(copy, await original.report(_get_id, source))
        await original.report(_check_unused, source)
        for table in _TABLES:
            await _copy_table(original, copy, table, show)
        rows = 0
        async with _closed(source, copy, clock):
            for table in _TABLES:
                rows += await _compare_table(original, copy, table, show)
            await copy.write(_finish, await original.report(_find_last_epoch))
    return rows


@asynccontextmanager
async def _closed(source: LedgerLocation, copy: Database, clock: Clock) -> AsyncIterator[None]:
    """Let no process use a ledger from now on: it would capture what the copy does, too.

    If the block fails, the ledger can be used again, unless another process has completed the copy.
    """
    async with _open(source, clock) as original:
        await original.write(_close, source)
        try:
            yield
        except BaseException:
            await copy.read(_check_incomplete)
            await original.write(_set_oldest_schema, get_oldest_schema())
            raise


def _close(tx: Transaction, location: LedgerLocation) -> None:
    if tx.dialect.lock_about:
        tx.execute(text(tx.dialect.lock_about))  # wait for transactions that have begun
    _check_unused(tx, location)
    _set_oldest_schema(tx, MOVED)


def _set_oldest_schema(tx: Transaction, schema: int) -> None:
    tx.execute(update(about).values(oldest_schema=schema))


async def copy_pairs(source: LedgerLocation, to: Path, *, clock: Clock) -> None:
    """See ``Ledger.copy_pairs``."""
    if isinstance(source, Path):
        back_up(source, to)
        return
    async with _open(source, clock, read_only=True) as original, _open(to, clock) as copy:
        await _begin(copy, await original.report(get_id, source))
        for table in _PAIR_TABLES:
            await _copy_table(original, copy, table, lambda _: None)
        await copy.write(_finish, await original.report(_find_last_epoch))


@asynccontextmanager
async def _open(location: LedgerLocation, clock: Clock, *, read_only: bool = False) -> AsyncIterator[Database]:
    database = Database(location, clock, read_only=read_only)
    try:
        yield database
    finally:
        await database.close()


async def _begin(copy: Database, ledger_id: str) -> None:
    """Create the tables of the copy, or find those of an interrupted one. Raises ``LedgerError``."""
    if not await copy.write(_create, ledger_id):
        raise LedgerError(f"{copy.location} already contains a ledger; name a new file, or an empty database")


def _get_id(tx: Transaction, location: LedgerLocation) -> str:
    """Return the ledger's id. Raises ``LedgerError`` unless the ledger has exactly the schema of this code."""
    found = find_about(tx)
    # A copy that was interrupted has closed the ledger, but it may be continued.
    if found is None or found.oldest_schema != MOVED:
        get_id(tx, location)
    assert found is not None
    if found.schema != get_newest_schema() or found.list_pending():
        raise LedgerError(
            f"the ledger {location} has schema {found.schema} and supports schema {found.oldest_schema}, but only a "
            f"ledger that has exactly schema {get_newest_schema()} can be copied by this version of harvester. Use "
            "its newest version, run harvester ledger migrate, and repeat the command"
        )
    return found.ledger_id


def _create(tx: Transaction, ledger_id: str) -> bool:
    """Return whether the database is a copy of this ledger that is not complete; creates one in an empty database.

    Until it is complete, ``oldest_schema`` is the schema of the code that creates it. Raises ``LedgerError`` if that is
    another one.
    """
    found, schema = find_about(tx), get_newest_schema()
    if found is None:
        create_tables(tx)
        found = About(ledger_id, COPYING, schema)
        tx.execute(insert(about).values(ledger_id=ledger_id, schema_version=COPYING, oldest_schema=schema))
    if (found.ledger_id, found.schema) == (ledger_id, COPYING) and found.oldest_schema != schema:
        raise LedgerError("another version of harvester has begun this copy: empty it, and repeat the command")
    return found == About(ledger_id, COPYING, schema)


def _check_unused(tx: Transaction, location: LedgerLocation) -> None:
    if tx.execute(select(owners.c.id).where(owners.c.alive_until > tx.lease_now)).first() is not None:
        raise LedgerError(
            f"a process uses the ledger {location}: stop it, and repeat the command. One that was "
            "killed counts until its lease ends, a minute later"
        )


async def _copy_table(original: Database, copy: Database, table: Table, show: Show) -> None:
    """Copy the rows that are missing in the copy, in the order of their keys."""
    after = await copy.read(_find_last_id, table)
    copied = 0
    while page := await original.report(_list_page, table, after):
        await copy.write(_add_page, table, page)
        after = _get_key(table, page[-1])
        copied += len(page)
        show(f"copied {copied} rows of the table {table.name}")


async def _compare_table(original: Database, copy: Database, table: Table, show: Show) -> int:
    """Compare all rows; returns how many there are. Raises ``LedgerError`` if some differ."""
    compared, after = 0, None
    while page := await original.report(_list_page, table, after):
        keys = [_get_key(table, each) for each in page]
        if set(page) != await copy.read(_find_rows, table, keys):
            break
        after = keys[-1]
        compared += len(page)
        show(f"compared {compared} rows of the table {table.name}")
    if page or await copy.read(_count_rows, table) != compared:
        raise LedgerError(
            f"the rows of the table {table.name} in {original.location} and {copy.location} differ: the ledger was "
            "used while it was copied, or since. Empty the copy, stop all processes, and repeat the command"
        )
    return compared


def _key(table: Table) -> ColumnElement[Any]:
    columns = list(table.primary_key)
    return columns[0] if len(columns) == 1 else tuple_(*columns)


def _get_key(table: Table, row: Row) -> Any:
    names = table.c.keys()
    values = tuple(row[names.index(each.key)] for each in table.primary_key)
    return values[0] if len(values) == 1 else values


def _find_last_id(tx: Transaction, table: Table) -> int | None:
    """Return the highest id, up to which all rows have been copied; None for a table whose keys are no numbers."""
    key = _key(table)
    return tx.execute(select(func.max(key))).scalar_one() if isinstance(key.type, Integer) else None


def _list_page(tx: Transaction, table: Table, after: Any) -> list[Row]:
    key = _key(table)
    page = select(table).order_by(*table.primary_key).limit(_PAGE_PARTS if table is parts else _PAGE_ROWS)
    if after is not None:
        page = page.where(key > (tuple_(*after) if isinstance(after, tuple) else after))
    return [tuple(row) for row in tx.execute(page)]


def _find_rows(tx: Transaction, table: Table, keys: Sequence[Any]) -> set[Row]:
    return {tuple(row) for row in tx.execute(select(table).where(_key(table).in_(keys)))}


def _count_rows(tx: Transaction, table: Table) -> int:
    lift_timeout(tx)
    return tx.execute(select(func.count()).select_from(table)).scalar_one()


def _add_page(tx: Transaction, table: Table, page: Sequence[Row]) -> None:
    """Add the rows that the copy does not have yet."""
    names = table.c.keys()
    rows = [dict(zip(names, each, strict=True)) for each in page]
    tx.execute(tx.dialect.insert(table).on_conflict_do_nothing(), rows)


def _find_last_epoch(tx: Transaction) -> int:
    """Return the highest epoch of the rows, which no owner may get again; 0 if there is none."""
    used = (select(each.c.epoch).where(each.c.epoch.is_not(None)) for each in (owners, pairs, batches))
    highest: int = tx.execute(select(func.coalesce(func.max(union_all(*used).subquery().c.epoch), 0))).scalar_one()
    return highest


def _check_incomplete(tx: Transaction) -> None:
    if tx.execute(select(about.c.schema_version)).scalar_one() != COPYING:
        raise LedgerError("another process has completed this copy; only the copy can be used now")


def _finish(tx: Transaction, last_epoch: int) -> None:
    """Continue the ids of the original, count the rows, and make the copy a ledger."""
    _check_incomplete(tx)
    if last_epoch:
        tx.execute(insert(owners).values(epoch=last_epoch, id="copy", alive_until=0.0, version=""))
    tx.dialect.continue_ids(tx.connection)
    tx.execute(delete(owners))
    start_counting(tx)
    tx.execute(update(about).values(schema_version=get_newest_schema(), oldest_schema=get_oldest_schema()))
