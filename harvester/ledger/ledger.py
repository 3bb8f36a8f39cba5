"""Opens a ledger, and provides its interfaces: ``intake``, ``batches``, ``upkeep`` and ``reports``.

Every database error becomes a ``LedgerError``.
"""

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from harvester.clock import BrazeClock, Clock
from harvester.errors import LedgerError, LedgerLost
from harvester.ledger import braze_time, leases
from harvester.ledger.availability import LedgerOutage
from harvester.ledger.batches import Batches
from harvester.ledger.braze_time import ClockDifference
from harvester.ledger.database import Database
from harvester.ledger.dialect import Owner
from harvester.ledger.intake import Intake
from harvester.ledger.migrations import find_id, get_id, has_ledger, prepare, try_to_write
from harvester.ledger.rebuild import rebuild
from harvester.ledger.reports import Reports
from harvester.ledger.upkeep import Upkeep
from harvester.model import LastCapture
from harvester.place import LedgerLocation
from harvester.schedule import ReadingPlan

if TYPE_CHECKING:
    from harvester.ledger.migrate import Migration

T = TypeVar("T")


class Ledger:
    """The handle of this process on a ledger; several processes can share it.

    Use it as an async context manager: ``async with await Ledger.open(location, clock=clock) as ledger``.
    """

    def __init__(self, database: Database, ledger_id: str, owner: Owner, jitter: random.Random) -> None:
        """Wrap a prepared database; use ``open``."""
        self.ledger_id = ledger_id
        self.clock_difference: ClockDifference | None = None
        self.outdated_difference: ClockDifference | None = None
        self.intake = Intake(database)
        self.batches = Batches(database, owner, jitter)
        self.upkeep = Upkeep(database)
        self.reports = Reports(database)
        self._database = database
        self._owner = owner

    @classmethod
    async def open(cls, location: LedgerLocation, *, clock: Clock, jitter: random.Random | None = None) -> Self:
        """Open or create the ledger. Raises ``LedgerError``, with the reason, when it cannot be used.

        ``clock`` is the machine's clock; code that works with the ledger uses ``ledger.clock``, which is Braze's.
        """
        database = Database(location, clock)
        try:
            # Only a new or an older ledger is written to, so that a command that reads never waits for a writer.
            found = await database.read(find_id)
            ledger_id = await database.write(prepare, database.list_living) if found is None else found
            known = await database.read(braze_time.find_difference) if _is_of_one_machine(location) else None
            owner = database.create_owner(leases.create_owner_name())
            database.watch(ledger_id)
        except BaseException:
            await database.close()
            raise
        ledger = cls(database, ledger_id, owner, jitter or random.Random())  # noqa: S311 - jitter, no secret
        ledger._assume_difference(known, clock)
        return ledger

    def _assume_difference(self, known: ClockDifference | None, machine: Clock) -> None:
        """Start with the last measured difference of the clocks, unless the machine's clock was set since."""
        if known is None:
            return
        if not known.still_holds(machine.wall()):
            self.outdated_difference = replace(known, outdated=True)
            return
        self.clock_difference = known
        if known.is_large:
            self._database.clock = BrazeClock(machine, difference=known.seconds)

    @staticmethod
    @asynccontextmanager
    async def open_to_read(location: LedgerLocation, *, clock: Clock) -> AsyncIterator[Reports]:
        """Open an existing ledger read-only, even while others use it. Raises ``LedgerError``.

        It takes no lock and upgrades nothing. Its time is Braze's, unless the machine's clock was set since.
        """
        database = Database(location, clock, read_only=True)
        try:
            await database.report(get_id, location)
            known = await database.report(braze_time.find_difference) if _is_of_one_machine(location) else None
            if known is not None and known.still_holds(clock.wall()) and known.is_large:
                database.clock = BrazeClock(clock, difference=known.seconds)
            yield Reports(database)
        finally:
            await database.close()

    @staticmethod
    async def exists(location: LedgerLocation, *, clock: Clock) -> bool:
        """Return whether there is a ledger, of any schema. Creates nothing. Raises ``LedgerError`` for a database."""
        if isinstance(location, Path):
            return location.exists()
        database = Database(location, clock, read_only=True)
        try:
            return await database.report(has_ledger)
        finally:
            await database.close()

    @staticmethod
    async def try_to_write(location: LedgerLocation, *, clock: Clock) -> str:
        """Create the ledger, or change it, and undo that; returns its id. Raises ``LedgerError`` at once."""
        database = Database(location, clock)
        try:
            return await database.write(try_to_write)
        finally:
            await database.close()

    @staticmethod
    async def migrate(location: LedgerLocation, *, clock: Clock) -> "Migration":
        """Upgrade an existing ledger as far as the processes that use it allow. Raises ``LedgerError``.

        It adds what this version needs, if the processes of earlier versions can continue, and removes what only they
        need once none of them lives.
        """
        from harvester.ledger.migrate import migrate  # noqa: PLC0415 - only one command needs it

        return await migrate(location, clock=clock)

    @staticmethod
    async def copy(source: LedgerLocation, to: LedgerLocation, *, clock: Clock, show: Callable[[str], None]) -> int:
        """Copy a ledger that no process uses into another database, and compare all rows; returns how many there are.

        ``to`` is empty, or the copy of the same ledger that was interrupted. ``show`` gets a text for each page. Raises
        ``LedgerError``.
        """
        from harvester.ledger.copy import copy_ledger  # noqa: PLC0415 - only one command needs it

        return await copy_ledger(source, to, clock=clock, show=show)

    @staticmethod
    async def copy_pairs(source: LedgerLocation, to: Path, *, clock: Clock) -> None:
        """Copy the pairs of a ledger into a new file, even while others use the ledger. Raises ``LedgerError``.

        The copy of a file has everything else, too; that of a database has no outcomes and no parts.
        """
        from harvester.ledger.copy import copy_pairs  # noqa: PLC0415 - as above

        await copy_pairs(source, to, clock=clock)

    @property
    def location(self) -> LedgerLocation:
        """Return where the ledger is: the real path of its file, or its database."""
        return self._database.location

    @property
    def outage(self) -> LedgerOutage | None:
        """Return why the server of the ledger cannot be used now; None while it can, and always for a file."""
        return self._database.availability.outage

    async def cancel_if_unavailable(self, work: Awaitable[T]) -> T:
        """Return the result of work. Cancel it, and raise ``LedgerError``, as soon as the server is unavailable."""
        return await self._database.availability.cancel_if_unavailable(work)

    def report_as_conditions(self) -> None:
        """Do not log when the server becomes unavailable and available: the caller reports ``outage``."""
        self._database.availability.logs_changes = False

    def keep_trying(self) -> None:
        """Wait from now on for a server that is unavailable, as long as it takes; a command gives up after seconds."""
        self._database.availability.keep_trying()

    def stop_waiting(self) -> None:
        """Do not wait for long any more for a server that is unavailable, because the process ends."""
        self._database.stop_waiting()

    @property
    def clock(self) -> BrazeClock:
        """Return Braze's clock, the time of every transaction."""
        return self._database.clock

    @property
    def lease_seconds(self) -> float:
        """Return the duration of a lease without a renewal."""
        return self._database.lease_seconds

    @property
    def lost(self) -> LedgerLost | None:
        """Return the error that every method raises once the file was moved or removed; None before that."""
        return self._database.lost

    async def save_clock_difference(self) -> None:
        """Store the measured difference of the clocks, if it changed, for commands that make no request.

        Processes that use a database may run on several machines, so it would not apply to their clocks.
        """
        seconds, known = self.clock.difference, self.clock_difference
        if seconds is None or not _is_of_one_machine(self.location):
            return
        measured = ClockDifference(round(seconds, 1), self.clock.wall())
        if known is None or measured.should_replace(known):
            await self._database.write(braze_time.save_difference, measured)
            self.clock_difference = measured

    async def rebuild(
        self,
        ledger_id: str,
        captures: Iterable[LastCapture],
        plans: Mapping[str, ReadingPlan],
        *,
        unmarked: Mapping[str, str] | None = None,
    ) -> int:
        """Set the ledger's id and add the pairs of its dataset, in one transaction; returns the number of new pairs.

        ``unmarked`` has the id that the ledger gives to the dataset without a marker at each place.
        """
        restored = await self._database.write(rebuild, ledger_id, captures, plans, unmarked=unmarked)
        self.ledger_id = ledger_id
        self._database.watch(ledger_id)
        return restored

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close the ledger, and show that this process has ended."""
        if self.outage is None:  # otherwise its lease ends
            with contextlib.suppress(LedgerError):  # a file that cannot be written is closed all the same
                await self.batches.unregister()
        await self._database.close()
        self._owner.release()


def _is_of_one_machine(location: LedgerLocation) -> bool:
    """Return whether all processes that use a ledger have the clock of one machine."""
    return isinstance(location, Path)
