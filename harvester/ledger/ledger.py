"""The ledger as the rest of the house sees it: awaitable verbs, each one transaction on the ledger's own thread.

It owns the database, this process's identity as an owner of batches, and the names of batches. It must never
let a foreign error out: whatever the database says leaves here as a ``LedgerError``.
"""

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import structlog
from sqlalchemy import Connection, Engine, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from harvester.clock import LARGE_DIFFERENCE_SECONDS, BrazeClock, Clock
from harvester.errors import LedgerError, LedgerLost
from harvester.ledger import adoption, batches, braze_time, leases
from harvester.ledger.file_identity import FileIdentity, resolve_ledger
from harvester.ledger.migrations import upgrade
from harvester.ledger.schema import SCHEMA_VERSION, about, metadata
from harvester.ledger.sqlite import READS_ONLY, OwnerLock, connect, describe, save
from harvester.model import Batch, Deferred, Part, Probe, Settlement
from harvester.private_files import make_private_folder
from harvester.schedule import deferral_seconds

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")

LEASE_SECONDS = 120.0


class Ledger:
    """One ledger, opened by one process.

    Use it as an async context manager, or ``await Ledger.open(path, ...)`` and ``close`` it.
    """

    def __init__(self, path: Path, engine: Engine, *, clock: Clock, jitter: random.Random) -> None:
        """Take an engine that speaks to the database at ``path``; ``open`` is the usual way in."""
        self.path = path
        self.ledger_id = ""
        self._owner = secrets.token_hex(8)
        self._engine = engine
        self._reading = engine.execution_options(**READS_ONLY)
        self.clock = BrazeClock(clock)
        self.clock_difference: braze_time.ClockDifference | None = None
        self.outdated_difference: braze_time.ClockDifference | None = None
        self._machine = clock
        self._jitter = jitter
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._lock: OwnerLock | None = None
        self._files: FileIdentity | None = None
        self.lost: LedgerLost | None = None
        """Set once the file is no longer in its place; every method raises it from then on."""

    @classmethod
    async def open(cls, path: Path, *, clock: Clock, jitter: random.Random | None = None) -> Self:
        """Open or create the ledger. Raises ``LedgerError`` when it cannot be used, saying why.

        ``clock`` is the machine's clock; code that works with the ledger uses ``ledger.clock``, which is Braze's.
        """
        path = resolve_ledger(path)
        ledger = cls(path, connect(path), clock=clock, jitter=jitter or random.Random())  # noqa: S311 - jitter, no secret
        try:
            # Only a new or an older ledger is written to, so that a command that reads never waits for a writer.
            found = await ledger.look(_find_id)
            ledger.ledger_id = await ledger.do(_prepared) if found is None else found
            await ledger._assume_difference()
            ledger._lock = OwnerLock(path, ledger._owner)
            ledger._files = FileIdentity(path)
        except BaseException:
            await ledger.close()
            raise
        return ledger

    async def _assume_difference(self) -> None:
        """Start with the last measured difference of the clocks, unless the machine's clock was set since."""
        known = await self.look(braze_time.difference)
        if known is None:
            return
        if not known.still_holds(self._machine.wall()):
            self.outdated_difference = replace(known, outdated=True)
            return
        self.clock_difference = known
        if abs(known.seconds) > LARGE_DIFFERENCE_SECONDS:
            self.clock = BrazeClock(self._machine, difference=known.seconds)

    async def keep_clock_difference(self) -> None:
        """Keep the measured difference of the clocks for commands that make no call; rarely, for it rarely changes."""
        seconds, known = self.clock.difference, self.clock_difference
        if seconds is None:
            return
        measured = braze_time.ClockDifference(round(seconds, 1), self.clock.wall())
        if known is None or measured.tells_more_than(known):
            await self.do(braze_time.keep_difference, measured)
            self.clock_difference = measured

    async def __aenter__(self) -> Self:
        """Give itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Let go of the file, the lock and the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def do(self, verb: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a verb as one transaction; it is committed, durably, when this returns. Raises ``LedgerError``."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._transaction(self._engine, verb, *args, **kwargs))

    async def look(self, verb: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a verb that only reads, without holding up those who write. Raises ``LedgerError``."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._transaction(self._reading, verb, *args, **kwargs))

    def _check_in_place(self) -> None:
        """Compare the files by device and inode; the content of a lost file is saved beside it, once."""
        missing = self._files.missing() if self._files is not None and self.lost is None else None
        if missing is not None:
            self.lost = LedgerLost(f"{missing} was removed or replaced while it was in use. {self._rescue()}")
            log.error("ledger_lost", reason=str(self.lost))
        if self.lost is not None:
            raise self.lost

    def _rescue(self) -> str:
        """Copy the content of the open file to a name beside it; returns a sentence that says where, and what to do."""
        moment = datetime.fromtimestamp(self.clock.wall(), UTC)
        to = self.path.with_name(f"{self.path.name}.saved-{moment:%Y%m%dT%H%M%SZ}-{self._owner[:4]}")
        connection = self._engine.raw_connection()
        try:
            make_private_folder(to.parent)
            save(connection.driver_connection, to, what=str(self.path))  # type: ignore[arg-type] # it is sqlite3's
        except (LedgerError, OSError) as error:
            return f"Its content could not be saved ({error}): restore a backup, or use harvester ledger rebuild"
        finally:
            connection.close()
        return f"Its content was saved: move {to} to {self.path}, and start again"

    def _transaction(
        self, engine: Engine, verb: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        self._check_in_place()
        try:
            with engine.begin() as connection:
                return verb(connection, *args, **kwargs)
        except DBAPIError as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be used: {describe(error)}; nothing sealed is lost"
            ) from None

    async def claim(self, workspace: str, *, limit: int, probe: Probe | None = None) -> Batch | None:
        """Lease up to ``limit`` due readings, nearest deadline first.

        With a ``probe`` one reading is leased that it describes.
        """
        now = self.clock.wall()
        # Time first, so that names sort as batches were claimed; then chance, so that no two owners agree on one.
        batch_id = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(4)}"
        return await self.do(
            batches.claim, workspace, batch_id=batch_id, token=secrets.token_hex(8), owner=self._owner,
            limit=limit, now=now, lease_until=now + LEASE_SECONDS, probe=probe,
            confirmed=self.clock.confirmed,
        )  # fmt: skip

    async def renew(self, batch_ids: Sequence[str]) -> set[str]:
        """Lengthen the lease of open batches; gives those that are still ours."""
        until = self.clock.wall() + LEASE_SECONDS
        return await self.do(leases.renew, batch_ids, owner=self._owner, lease_until=until)

    async def held_by_others(self, workspace: str) -> bool:
        """Tell whether another process has readings of a workspace in hand that are asked for once."""
        return await self.do(leases.held_by_others, workspace, owner=self._owner)

    async def seal(
        self, batch: Batch, settlements: Sequence[Settlement], parts: Sequence[Part], *, destination: str
    ) -> bool:
        """Record what became of a batch, with its parts' bytes. False if the batch had been given to another."""
        deferred = [each.reading.pair_id for each in settlements if isinstance(each.outcome, Deferred)]
        now, confirmed = self.clock.wall(), self.clock.confirmed  # not available in the ledger's thread

        def sealed(connection: Connection) -> bool:
            before = batches.deferrals_of(connection, deferred) if deferred else {}
            delays = {pair_id: deferral_seconds(count, self._jitter) for pair_id, count in before.items()}
            return batches.seal(
                connection, batch, settlements, parts, destination=destination, now=now, deferral_delays=delays,
                confirmed=confirmed,
            )  # fmt: skip

        return await self.do(sealed)

    async def adopt(self, ledger_id: str, restore: Callable[[Connection], int]) -> int:
        """Restore what is known of a dataset, and be the ledger of that id from now on: whole, or not at all."""

        def adopted(connection: Connection) -> int:
            adoption.take_identity(connection, ledger_id)
            return restore(connection)

        restored = await self.do(adopted)
        self.ledger_id = ledger_id
        return restored

    async def recover(self) -> list[leases.Unstored]:
        """Take back what dead or lapsed owners held; gives the sealed batches that are now ours to create."""
        assert self._lock is not None
        lock = self._lock
        owners = await self.do(leases.unfinished_owners)
        dead = [owner for owner in owners if owner != self._owner and lock.is_dead(owner)]
        lock.clear_dead()
        now = self.clock.wall()
        return await self.do(
            leases.recover, dead_owners=dead, owner=self._owner, now=now, lease_until=now + LEASE_SECONDS
        )


def _find_id(connection: Connection) -> str | None:
    """Return the ledger's id; None for a file that is not a ledger of today's schema yet."""
    if not inspect(connection).has_table(about.name):
        return None
    ledger_id, version = connection.execute(select(about.c.ledger_id, about.c.schema_version)).one()
    return str(ledger_id) if version == SCHEMA_VERSION else None


def _prepared(connection: Connection) -> str:
    """Make the tables of a new ledger, or upgrade an older one; give the ledger's id. Raises ``LedgerError``."""
    tables = set(inspect(connection).get_table_names())
    if about.name not in tables:
        if tables:
            raise LedgerError("this file is a database of something else; give --state another file")
        metadata.create_all(connection)
        connection.execute(insert(about).values(ledger_id=secrets.token_hex(16), schema_version=SCHEMA_VERSION))
    ledger_id, version = connection.execute(select(about.c.ledger_id, about.c.schema_version)).one()
    if version != SCHEMA_VERSION:
        upgrade(connection, version)
    return str(ledger_id)
