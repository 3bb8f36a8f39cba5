"""Creates a ledger in an empty database, and applies steps to one of an earlier schema, each time in one transaction.

Code can use a ledger whose schema is its own or newer, if its own is not older than the ``oldest_schema`` that the
ledger supports. Expand phases raise the first number, and contract phases the second one.

A migration locks the table ``about``. Every transaction of an opened ledger reads ``oldest_schema`` there at its begin.
So none overlaps a contract phase, and a process whose code has become too old is refused before it reads or writes
anything.
"""

import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import DDL, insert, inspect, text, update
from sqlalchemy.exc import DBAPIError

from harvester.errors import LedgerError
from harvester.ledger.counts import lift_timeout, start_counting
from harvester.ledger.database import Transaction
from harvester.ledger.schema import COPYING, about, metadata
from harvester.ledger.steps import (
    COUNTS_SINCE,
    OWNERS_SINCE,
    STEPS,
    explain_newer,
    get_newest_schema,
    get_oldest_schema,
)
from harvester.place import LedgerLocation

ListLiving = Callable[[Collection[str]], list[str]]
"""Lists the processes that use the ledger, given those whose leases have not ended; see ``Backend.list_living``."""

_FOREIGN = "this database contains tables of another program; name a different file or database"


@dataclass(frozen=True, slots=True)
class About:
    """The id of a ledger, its schema, and the oldest schema whose code can still use it."""

    ledger_id: str
    schema: int
    oldest_schema: int

    @property
    def usable(self) -> bool:
        """Return whether this code can use the ledger."""
        return self.oldest_schema <= get_newest_schema() <= self.schema

    def list_pending(self) -> list[int]:
        """Return the steps whose expand phase was applied, but not their contract phase."""
        return [each for each, step in STEPS.items() if step.contract and self.oldest_schema < each <= self.schema]


def find_about(tx: Transaction) -> About | None:
    """Return the ledger's id and schemas, or None if the database contains no ledger."""
    if not has_ledger(tx):
        return None
    row = tx.execute(text("SELECT * FROM about")).mappings().first()  # the columns depend on the schema
    if row is None or not {"ledger_id", "schema_version"} <= row.keys():
        raise LedgerError(_FOREIGN)
    return About(row["ledger_id"], row["schema_version"], row.get("oldest_schema", row["schema_version"]))


def has_ledger(tx: Transaction) -> bool:
    """Return whether there is a ledger, of any schema."""
    return inspect(tx.connection).has_table(about.name)


def find_id(tx: Transaction) -> str | None:
    """Return the id of a ledger that this code can use; otherwise None."""
    found = find_about(tx)
    return found.ledger_id if found is not None and found.usable else None


def get_id(tx: Transaction, location: LedgerLocation) -> str:
    """Return the ledger's id. Raises ``LedgerError`` for a ledger that this code cannot use."""
    found = find_about(tx)
    if found is None:
        raise LedgerError(f"{location} contains no ledger; name another one with --state")
    _check_known(found)
    if not found.usable:
        raise LedgerError(
            f"the ledger {location} has schema {found.schema}, and this version of harvester needs schema "
            f"{get_newest_schema()}; to upgrade the ledger, run harvester ledger migrate"
        )
    return found.ledger_id


def prepare(tx: Transaction, list_living: ListLiving) -> str:
    """Create a ledger, or upgrade one that no other process uses; returns its id. Raises ``LedgerError``."""
    _begin(tx)
    found = find_about(tx)
    if found is None:
        return _create(tx)
    _check_known(found)
    if not found.usable:
        if living := _list_living(tx, found, list_living):
            raise LedgerError(
                f"this ledger has schema {found.schema}, and it is still used by {_format_names(living)}, so it is not "
                f"upgraded to schema {get_newest_schema()} now. Run harvester ledger migrate, or stop the other "
                "processes first; in PostgreSQL, a process that was killed counts until its lease ends, a minute later"
            )
        _contract(tx, _expand(tx, found).list_pending())
    return found.ledger_id


def try_to_write(tx: Transaction) -> str:
    """Create or change a ledger, and undo it in the same transaction; returns its id. Raises ``LedgerError``."""
    with tx.connection.begin_nested() as savepoint:
        ledger_id = prepare(tx, list)
        tx.execute(update(about).values(schema_version=about.c.schema_version))
        savepoint.rollback()
    return ledger_id


def apply_expand_phases(tx: Transaction, list_living: ListLiving) -> tuple[int, int]:
    """Apply the missing expand phases; returns the schemas before and after it.

    Raises ``LedgerError`` if one of them stops other processes, and there are some.
    """
    _begin(tx)
    found = find_about(tx)
    if found is None:
        raise LedgerError("this database contains no ledger; name another one with --state")
    _check_known(found)
    missing = range(found.schema + 1, get_newest_schema() + 1)
    if not missing:
        return found.schema, found.schema
    living = _list_living(tx, found, list_living)
    if living and any(STEPS[each].stops_others for each in missing):
        raise LedgerError(
            f"processes of earlier versions cannot use this ledger after its upgrade from schema {found.schema}: stop "
            f"{_format_names(living)}, and repeat the command"
        )
    _expand(tx, found)
    return found.schema, get_newest_schema()


def apply_contract_phases(tx: Transaction, list_living: ListLiving) -> tuple[list[int], list[str]]:
    """Apply the pending contract phases that no living process prevents.

    Returns the steps whose contract phase was applied, and the processes of earlier schemas that prevent the next one.
    """
    _begin(tx)
    found = find_about(tx)
    if found is None or not found.list_pending():
        return [], []
    living = _list_living(tx, found, list_living)
    possible = [each for each in found.list_pending() if each <= min(living.values(), default=each)]
    _contract(tx, possible)
    postponed = found.list_pending()[len(possible) :]
    return possible, [name for name, schema in living.items() if postponed and schema < postponed[-1]]


def try_contract_phases(tx: Transaction, list_living: ListLiving) -> list[int]:
    """Apply the contract phases that no living process prevents; returns their steps.

    Raises ``LedgerError`` for any error of the database, so that the transaction is not repeated.
    """
    try:
        return apply_contract_phases(tx, list_living)[0]
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise LedgerError(f"the migration cannot be finished now: {reason}; it is tried again in ten minutes") from None


def has_pending(tx: Transaction) -> bool:
    """Return whether a contract phase can be applied once nothing prevents it."""
    found = find_about(tx)
    return found is not None and bool(found.list_pending())


def create_tables(tx: Transaction) -> None:
    """Create the tables of a ledger in an empty database. Raises ``LedgerError`` if there are other tables."""
    tables = set(inspect(tx.connection).get_table_names())
    if tables if tx.dialect.single_writer else tables & metadata.tables.keys():  # a server's may contain others
        raise LedgerError(_FOREIGN)
    metadata.create_all(tx.connection, checkfirst=False)  # there is none yet
    for statement in tx.dialect.after_create:
        tx.execute(text(statement))


def _create(tx: Transaction) -> str:
    create_tables(tx)
    start_counting(tx)
    ledger_id, schemas = secrets.token_hex(16), (get_newest_schema(), get_oldest_schema())
    tx.execute(insert(about).values(ledger_id=ledger_id, schema_version=schemas[0], oldest_schema=schemas[1]))
    return ledger_id


def _begin(tx: Transaction) -> None:
    """Wait for other transactions that create or upgrade the tables. All statements may take long."""
    lift_timeout(tx)
    for statement in tx.dialect.lock_schema:
        tx.execute(text(statement))


def _check_known(found: About) -> None:
    """Raise ``LedgerError`` for a ledger that this code can neither use nor upgrade."""
    if found.schema == COPYING:
        raise LedgerError("this copy of a ledger is not complete; repeat the harvester ledger copy that created it")
    if found.schema < 1 or found.oldest_schema > get_newest_schema():
        raise LedgerError(f"this ledger {explain_newer(found.oldest_schema)}")


def _list_living(tx: Transaction, found: About, list_living: ListLiving) -> dict[str, int]:
    """Return the processes that use the ledger, each with the schema of its code; 0 if it is unknown."""
    if tx.dialect.lock_about:
        tx.execute(text(tx.dialect.lock_about))  # so that no process registers meanwhile
    rows = tx.execute(text("SELECT * FROM owner")).mappings().all() if found.schema >= OWNERS_SINCE else ()
    leased = {row["id"]: row.get("schema_version", found.schema) for row in rows if row["alive_until"] >= tx.lease_now}
    return {name: leased.get(name, 0) for name in list_living(leased)}


def _format_names(living: Iterable[str]) -> str:
    names = sorted(living)
    more = f" and {len(names) - 5} others" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _expand(tx: Transaction, found: About) -> About:
    """Apply the expand phases of all steps after the schema of the ledger; returns its id and its schemas then."""
    for schema in range(found.schema + 1, get_newest_schema() + 1):
        _execute(tx, STEPS[schema].expand)
        metadata.create_all(tx.connection, tables=STEPS[schema].new_tables)
    if found.schema < COUNTS_SINCE:
        start_counting(tx)
    tx.execute(update(about).values(schema_version=get_newest_schema()))
    return replace(found, schema=get_newest_schema())


def _contract(tx: Transaction, schemas: Iterable[int]) -> None:
    """Apply the contract phases of these steps."""
    for schema in schemas:
        if STEPS[schema].contract:
            _execute(tx, STEPS[schema].contract)
            tx.execute(update(about).values(oldest_schema=schema))


def _execute(tx: Transaction, statements: Iterable[str]) -> None:
    for statement in statements:
        tx.execute(DDL(statement))  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types
