"""Two threads, each with its own connection: one for transactions that write, one for reports.

A slow report never delays a claim. Every database error becomes a ``LedgerError``.
"""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, TypeVarTuple, overload

import structlog
from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.selectable import TypedReturnsRows

from harvester.clock import BrazeClock, Clock
from harvester.errors import LedgerError, LedgerLost
from harvester.ledger.dialect import Dialect
from harvester.ledger.file_identity import FileIdentity
from harvester.ledger.sqlite import DIALECT, READS_ONLY, connect, connect_to_read, describe, save
from harvester.private_files import make_private_folder

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")
Columns = TypeVarTuple("Columns")

LEASE_SECONDS = 60.0
"""How long readings stay leased to a process that does not renew; it renews every quarter of this time.

Others recover what a dead process held, and serve its workspaces, within 90 seconds. A live process misses three
renewals before that, so a ledger that is slow for half a minute costs no leases.
"""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction: its connection, its database's dialect, and its time.

    ``now`` is Braze's time; ``confirmed`` is whether a response has confirmed it. Leases follow the machine's clock,
    ``lease_now``, which all processes that use the file share. A lease that is taken or renewed in this transaction
    ends at ``lease_until``.
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


class Lane:
    """One thread with one connection to the file, which no other thread uses."""

    def __init__(self, name: str, engine: Engine) -> None:
        """Connect at the first use."""
        self.engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], R]) -> R:
        """Run work on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def run_now(self, work: Callable[[], R]) -> R:
        """Run work on the thread, and wait for it on another one."""
        return self._thread.submit(work).result()

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await self.run(self.engine.dispose)
        self._thread.shutdown()


class Database:
    """The connections of this process to a ledger's file."""

    def __init__(self, path: Path, clock: Clock, *, reads_only: bool = False) -> None:
        """Open or create the file; ``clock`` is the machine's. Raises ``LedgerError``.

        With ``reads_only``, the file must exist, and is opened read-only: ``write`` fails.
        """
        self.path = path
        self.clock = BrazeClock(clock)
        self._machine = clock
        self.lease_seconds = LEASE_SECONDS
        self.lost: LedgerLost | None = None
        """Set once the file was moved or removed; every transaction raises it from then on."""
        self._files: FileIdentity | None = None
        self._writes = Lane("ledger", connect_to_read(path) if reads_only else connect(path))
        self._reports = Lane("reports", connect_to_read(path))
        self._reading = self._writes.engine.execution_options(**READS_ONLY)

    def watch_files(self) -> None:
        """Detect from now on when a file of the ledger is removed or replaced."""
        self._files = FileIdentity(self.path)

    async def close(self) -> None:
        """Close both connections, the writing one last, since the last one cleans up the file."""
        await self._reports.close()
        await self._writes.close()

    async def write(self, verb: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function as one transaction, which is durable on return. Raises ``LedgerError``."""
        work = self._work(verb, *args, **kwargs)
        return await self._writes.run(lambda: self._transaction(self._writes.engine, work))

    async def read(self, verb: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function that only reads, queued behind writes but without a write lock. Raises ``LedgerError``."""
        work = self._work(verb, *args, **kwargs)
        return await self._writes.run(lambda: self._transaction(self._reading, work))

    async def report(self, verb: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function that only reads, concurrently with writes. Raises ``LedgerError``."""
        work = self._work(verb, *args, **kwargs)
        return await self._reports.run(lambda: self._report(work))

    def _work(
        self, verb: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[Connection], R]:
        """Bind a function to the time of its call: other threads cannot read the event loop's time."""
        now, lease_now = self.clock.wall(), self._machine.wall()
        times = (now, self.clock.confirmed, lease_now, lease_now + self.lease_seconds)
        return lambda connection: verb(Transaction(connection, DIALECT, *times), *args, **kwargs)

    def _report(self, work: Callable[[Connection], R]) -> R:
        if self.lost is not None or (self._files is not None and self._files.missing() is not None):
            self._writes.run_now(self._check_in_place)  # only its connection can save the content
        return self._execute(self._reports.engine, work)

    def _transaction(self, engine: Engine, work: Callable[[Connection], R]) -> R:
        self._check_in_place()
        return self._execute(engine, work)

    def _execute(self, engine: Engine, work: Callable[[Connection], R]) -> R:
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be used: {describe(error)}; nothing sealed is lost"
            ) from None

    def _check_in_place(self) -> None:
        """Compare the files by device and inode; the content of a lost file is saved beside it, once."""
        missing = self._files.missing() if self._files is not None and self.lost is None else None
        if missing is not None:
            self.lost = LedgerLost(f"{missing} was removed or replaced while it was in use. {self._rescue()}")
            log.error("ledger_lost", reason=str(self.lost))
        if self.lost is not None:
            raise self.lost

    def _rescue(self) -> str:
        """Copy the content of the open file beside it; returns a sentence with the copy's name and what to do."""
        moment = datetime.fromtimestamp(self.clock.wall(), UTC)
        to = self.path.with_name(f"{self.path.name}.saved-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")
        connection = self._writes.engine.raw_connection()
        try:
            make_private_folder(to.parent)
            save(connection.driver_connection, to, what=str(self.path))  # type: ignore[arg-type] # it is sqlite3's
        except (LedgerError, OSError) as error:
            return f"Its content could not be saved ({error}): restore a backup, or use harvester ledger rebuild"
        finally:
            connection.close()
        return f"Its content was saved: move {to} to {self.path}, and start again"
