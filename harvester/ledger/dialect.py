"""Defines what differs between databases: a few expressions of SQL (``Dialect``), and the rest (``Backend``)."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqlalchemy import ColumnElement, Connection, Engine
from sqlalchemy.exc import DBAPIError

from harvester.errors import LedgerLost
from harvester.place import LedgerLocation

READ_ONLY = {"read_only": True}
"""The option of a connection whose transactions only read, and therefore block no other."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The operations of a database that SQLAlchemy does not abstract."""

    single_writer: bool
    """Whether only one transaction writes at a time.

    Otherwise transactions lock the rows that they change, in the order of their ids, and ids are not in the order of
    the transactions.
    """

    insert: Callable[[Any], Any]
    """An ``INSERT`` that has ``on_conflict_do_nothing``."""

    json_elements: Callable[..., Any]
    """A table of the elements of a JSON array."""

    json_row: Callable[..., Any]
    """A JSON array of columns."""

    json_rows: Callable[..., Any]
    """An aggregate: one JSON array of all rows."""

    continue_ids: Callable[[Connection], None]
    """Let the database choose the ids of new rows after those that were added with their ids."""

    json_value: Callable[..., Any]
    """A JSON array as an element of another one, and not as text."""

    analyze_pairs: Callable[[Connection], None]
    """Collect statistics of pairs if there are none yet."""

    exact_float: Callable[[ColumnElement[Any]], ColumnElement[Any]]
    """A float as JSON, or as text, with every digit."""

    whole: str
    """The SQL function that drops the fraction of a positive float."""

    count_statements: Callable[[str], tuple[str, ...]]
    """The statements that make the database count pairs by a key, which refers to the row as ``ROW``."""

    lock_schema: tuple[str, ...]
    """Statements by which transactions that create or upgrade the tables wait for each other."""

    lock_about: str
    """The statement that waits until no transaction reads the table ``about``, then blocks others; empty for none."""

    lift_timeout: Callable[[Connection], None]
    """Let the following statements of a transaction take as long as they need."""

    after_create: tuple[str, ...]
    """Statements for new tables."""

    summarize_counts: tuple[str, ...]
    """Statements that delete counts of zero, and add up the rows that transactions added for one count."""


class TransactionStart(NamedTuple):
    """What the database returned at the start of a transaction.

    ``lease_now`` is the time of leases, None for the machine's. ``transaction_id`` is valid after the transaction, too.
    ``oldest_schema`` is the oldest schema whose code can use the ledger, 0 before the ledger is watched.
    """

    lease_now: float | None = None
    transaction_id: str | None = None
    oldest_schema: int = 0


class Owner(Protocol):
    """The owner of this process's leases, which finds out which other owners have ended."""

    name: str

    def list_dead(self, owners: Iterable[str]) -> list[str]:
        """Return the owners whose process is known to have ended."""

    def release(self) -> None:
        """Show that this process has ended."""


class Backend(Protocol):
    """A database that contains a ledger."""

    dialect: Dialect
    lost: LedgerLost | None
    """Set once the ledger was moved or removed; every transaction raises it from then on."""

    @property
    def location(self) -> LedgerLocation:
        """Return where the ledger is. Links to a file are resolved."""

    def connect(self, *, read_only: bool) -> Engine:
        """Return an engine for one thread at a time; creates what is missing unless it is ``read_only``."""

    def begin(self, connection: Connection, *, writes: bool) -> TransactionStart:
        """Prepare a transaction, and return its lease time and id, and the oldest schema."""

    def was_committed(self, connection: Connection, transaction_id: str) -> bool | None:
        """Return whether a transaction was committed; None while the server still ends it."""

    def stop_waiting(self) -> None:
        """Wait less for a server that does not reply, because the process is stopping."""

    def watch(self, ledger_id: str) -> None:
        """Detect from now on when the ledger is moved, removed or replaced, and read its oldest schema each time."""

    def is_lost(self) -> bool:
        """Return whether the ledger was moved or removed since it was opened. Cheap."""

    def raise_if_lost(self, engine: Engine, now: float) -> None:
        """Raise ``LedgerLost`` for a ledger that was moved or removed. The first call saves its content."""

    def create_owner(self, name: str) -> Owner:
        """Show other processes that this one lives."""

    def list_living(self, leased: Collection[str]) -> list[str]:
        """List the owners that live, of those whose leases have not ended and of any others that are known."""

    def is_transient(self, error: DBAPIError) -> bool:
        """Return whether the same transaction may succeed later."""

    def describe(self, error: DBAPIError) -> str:
        """Describe an error for people, and what to do."""
