"""Two threads, each with its own connection: one for transactions that write, one for reports.

A slow report never delays a claim. Every database error becomes a ``LedgerError``. A transaction that fails because a
server is unavailable is repeated, once the ledger is open: a few times for a command, and until it succeeds for an
engine, whose callers only wait.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, TypeVarTuple, overload

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.selectable import TypedReturnsRows

from harvester.clock import BrazeClock, Clock
from harvester.errors import LedgerError, LedgerLost
from harvester.ledger.availability import Availability, CommitUnknown, TransactionFailed
from harvester.ledger.database_thread import DatabaseThread
from harvester.ledger.dialect import READ_ONLY, Backend, Dialect, Owner, TransactionStart
from harvester.ledger.sqlite_file import SQLiteFile
from harvester.ledger.steps import explain_newer, get_newest_schema
from harvester.place import LedgerLocation

P = ParamSpec("P")
R = TypeVar("R")
Columns = TypeVarTuple("Columns")

LEASE_SECONDS = 60.0
"""How long readings stay leased to a process that does not renew; it renews every quarter of this time.

Others recover what a dead process had leased, and serve its workspaces, within 90 seconds. A live process misses three
renewals before that, so a ledger that is slow for half a minute costs no leases.
"""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction: its connection, its database's dialect, and its time.

    ``now`` is Braze's time; ``confirmed`` is whether a response has confirmed it. Leases follow ``lease_now``, a clock
    that all processes share: the machine's for a file, the server's for a database. A lease that is taken or renewed
    in this transaction ends at ``lease_until``.
    """

    connection: Connection
    dialect: Dialect
    now: float
    confirmed: bool
    lease_now: float
    lease_until: float

    @overload
    def execute(  # type: ignore[overload-overlap] # as SQLAlchemy's own
        self, statement: TypedReturnsRows[*Columns], values: Any = None
    ) -> CursorResult[*Columns]: ...
    @overload
    def execute(self, statement: Executable, values: Any = None) -> CursorResult[Any]: ...
    def execute(self, statement: Executable, values: Any = None) -> CursorResult[Any]:
        """Execute one statement; with a list of ``values``, once for each.

        A statement can use the transaction's times as ``NOW``, ``LEASE_NOW`` and ``LEASE_UNTIL``, so that it is built
        once.
        """
        if not isinstance(values, list):
            times = {"now": self.now, "lease_now": self.lease_now, "lease_until": self.lease_until}
            values = times | (values or {})
        return self.connection.execute(statement, values)


def _create_backend(location: LedgerLocation) -> Backend:
    """Return the database at a location. Raises ``LedgerError``, or ``UsageError`` without its client library."""
    if isinstance(location, Path):
        return SQLiteFile(location)
    from harvester.ledger.postgresql import PostgreSQL  # noqa: PLC0415 - most users need no client of a server

    return PostgreSQL(location)


class Database:
    """The connections of this process to a ledger."""

    def __init__(self, location: LedgerLocation, clock: Clock, *, read_only: bool = False) -> None:
        """Open or create the ledger; ``clock`` is the machine's. Raises ``LedgerError``.

        With ``read_only``, the ledger must exist, and is opened read-only: ``write`` fails.
        """
        self._backend = _create_backend(location)
        self.clock = BrazeClock(clock)
        self.lease_seconds = LEASE_SECONDS
        self.availability = Availability(clock)
        self._schema = get_newest_schema()
        self._machine = clock
        self._repeats = False
        self._writes = DatabaseThread("ledger", self._backend.connect(read_only=read_only))
        self._reports = DatabaseThread("reports", self._backend.connect(read_only=True))
        self._reading = self._writes.engine.execution_options(**READ_ONLY)

    @property
    def location(self) -> LedgerLocation:
        """Return where the ledger is. Links to a file are resolved."""
        return self._backend.location

    @property
    def lost(self) -> LedgerLost | None:
        """Return the error that every transaction raises once a file was moved or removed; None before that."""
        return self._backend.lost

    def stop_waiting(self) -> None:
        """Do not wait for long any more for a server that is unavailable, or does not reply."""
        self.availability.stop_waiting()
        self._backend.stop_waiting()

    def repeat_transactions(self) -> None:
        """Repeat transactions from now on if they may succeed later: for seconds, or after ``keep_trying`` for ever."""
        self._repeats = True

    def watch(self, ledger_id: str) -> None:
        """Also detect from now on when the ledger is removed or replaced, or no longer supports this version."""
        self.repeat_transactions()
        self._backend.watch(ledger_id)

    def create_owner(self, name: str) -> Owner:
        """Show other processes that this one lives. Raises ``LedgerError``."""
        return self._backend.create_owner(name)

    def list_living(self, leased: Collection[str]) -> list[str]:
        """List the owners that live, of those whose leases have not ended and of any others that are known."""
        return self._backend.list_living(leased)

    async def close(self) -> None:
        """Close both connections, the writing one last, since the last one cleans up a file."""
        await self._reports.close()
        await self._writes.close()

    async def write(self, operation: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function as one transaction, which is durable on return. Raises ``LedgerError``.

        The function may run several times, but only one of these transactions is committed.
        """
        return await self._repeat(self._writes, lambda: self._work(self._writes.engine, operation, *args, **kwargs))

    async def read(self, operation: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function that only reads, queued behind writes but without a write lock. Raises ``LedgerError``."""
        return await self._repeat(self._writes, lambda: self._work(self._reading, operation, *args, **kwargs))

    async def report(self, operation: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function that only reads, concurrently with writes. Raises ``LedgerError``."""
        return await self._repeat(self._reports, lambda: self._work(self._reports.engine, operation, *args, **kwargs))

    def _work(
        self, engine: Engine, operation: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[], R]:
        """Bind a function to the time of its call: other threads cannot read the event loop's time."""
        now, confirmed, machine = self.clock.wall(), self.clock.confirmed, self._machine.wall()

        def call(connection: Connection, start: TransactionStart) -> R:
            lease_now = machine if start.lease_now is None else start.lease_now
            times = (now, confirmed, lease_now, lease_now + self.lease_seconds)
            return operation(Transaction(connection, self._backend.dialect, *times), *args, **kwargs)

        return lambda: self._run(engine, call, now)

    async def _repeat(self, thread: DatabaseThread, prepare: Callable[[], Callable[[], R]]) -> R:
        """Run work until it succeeds; ``prepare`` returns it for each attempt. Raises ``LedgerError``."""
        failures = 0
        while True:
            try:
                result = await thread.run(prepare())
            except TransactionFailed as failure:
                failures += 1
                await self.availability.wait(failures, failure.error)
            except CommitUnknown as unknown:
                if await self._was_committed(thread, unknown.transaction_id):
                    return unknown.result  # type: ignore[no-any-return] # it is of this call
            else:
                self.availability.record_success()
                return result

    async def _was_committed(self, thread: DatabaseThread, transaction_id: str) -> bool:
        """Ask the server until it knows whether a transaction was committed. Raises ``LedgerError``."""
        failures = 0
        while True:
            error = LedgerError("the server has not ended a transaction; it is asked again")
            try:
                committed = await thread.run(
                    lambda: self._try(thread.engine, lambda each: self._backend.was_committed(each, transaction_id))
                )
            except TransactionFailed as failure:
                committed, error = None, failure.error
            if committed is not None:
                self.availability.record_success()
                return committed
            failures += 1
            await self.availability.wait(failures, error)

    def _run(self, engine: Engine, work: Callable[[Connection, TransactionStart], R], now: float) -> R:
        """Run one transaction on this thread. Raises ``LedgerError``, ``TransactionFailed`` or ``CommitUnknown``."""
        if self._backend.is_lost():
            if engine is self._reports.engine:  # only the other connection can save the content
                self._writes.run_now(lambda: self._backend.raise_if_lost(self._writes.engine, now))
            self._backend.raise_if_lost(self._writes.engine, now)
        writes = engine is self._writes.engine
        return self._try(engine, lambda connection: self._commit(connection, work, writes=writes))

    def _try(self, engine: Engine, work: Callable[[Connection], R]) -> R:
        """Call a function with a connection. Raises ``LedgerError`` or ``TransactionFailed``."""
        if self.availability.given_up is not None:
            raise self.availability.given_up
        try:
            with engine.connect() as connection:
                return work(connection)
        except DBAPIError as error:
            problem = LedgerError(
                f"the ledger {self.location} cannot be used: {self._backend.describe(error)}; nothing sealed is lost"
            )
            if self._repeats and self._backend.is_transient(error):
                raise TransactionFailed(problem) from None
            raise problem from None

    def _commit(self, connection: Connection, work: Callable[[Connection, TransactionStart], R], *, writes: bool) -> R:
        with connection.begin() as transaction:
            start = self._backend.begin(connection, writes=writes)
            if start.oldest_schema > self._schema:
                raise LedgerError(f"the ledger {self.location} {explain_newer(start.oldest_schema)}")
            result = work(connection, start)
            try:
                transaction.commit()
            except DBAPIError as error:
                if start.transaction_id is not None and self._backend.is_transient(error):
                    raise CommitUnknown(start.transaction_id, result) from None
                raise
            return result
