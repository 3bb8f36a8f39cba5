"""A service as others see it: the snapshot that the web face shows, and the alarm before a deadline passes.

It reads the ledger and asks the pacers, and remembers what it told. It must never change what it looks at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from harvester import __version__
from harvester.engine.wiring import Harvesting, Wired
from harvester.health import Condition, Part
from harvester.ledger import Ledger
from harvester.ledger import books as ledger_books
from harvester.ledger import outlook as ahead
from harvester.model import Books
from harvester.monitor.history import BudgetHistory
from harvester.monitor.snapshot import Snapshot, Store, Trigger, WorkspaceNow
from harvester.settings import Settings
from harvester.sources.trigger import Trigger as Listening

BOOKS_SHARE, BOOKS_MAX_SECONDS = 20.0, 60.0
"""A balance is good for so many times as long as it took: counting a million settled pairs takes a second."""

ALARM_SECONDS = 3600.0
"""How often pairs that are at risk are told of again."""

PACE_TOLERANCE = 0.1
"""A pace is stored again once it differs by this fraction."""

REJECTIONS = 10

log = structlog.get_logger()


@dataclass(slots=True)
class _Balance:
    books: Books
    good_until: float


class Watch:
    """Looks at one service. ``note`` it every few seconds, so that the window's history has no gaps."""

    def __init__(
        self, settings: Settings, *, ledger: Ledger, harvesting: Harvesting, triggers: Sequence[Listening],
        conditions: Callable[[], Sequence[Condition]],
    ) -> None:  # fmt: skip
        """Look at what is put together already."""
        self._conditions = conditions
        self._triggers = triggers
        self._settings = settings
        self._ledger = ledger
        self._harvesting = harvesting
        self._clock = ledger.clock
        self._began = ledger.clock.monotonic()
        self._histories = {name: BudgetHistory() for name in settings.workspaces}
        self._balance: _Balance | None = None
        self._last_captures: dict[str, float] | None = None
        self._paces: dict[str, float] = {}
        self._told: dict[str, tuple[int, float]] = {}
        self._expired: dict[str, int] = {}

    def note(self) -> None:
        """Take note of how each budget stands."""
        for name, each in self._harvesting.wired.items():
            self._histories[name].note(each.pacer.state(), self._clock.wall())

    async def look(self) -> Snapshot:
        """Give the service at this moment. Raises ``LedgerError``."""
        now = self._clock.wall()
        self.note()
        if self._last_captures is None:
            self._last_captures = await self._ledger.look(ahead.last_captures)
        expired = await self._ledger.look(ahead.expired)
        halted = await self._ledger.look(ledger_books.halted)
        workspaces = [
            await self._workspace(
                name, each, now, expired=expired.get(name, 0), halted_since=halted[name][1] if name in halted else None
            )
            for name, each in self._harvesting.wired.items()
        ]
        conditions = tuple(self._conditions())
        unserved = [each.subject for each in conditions if each.part is Part.WORKSPACE]
        at_risk = {name: (await self._ledger.look(ahead.outlook, name, now=now)).at_risk for name in unserved}
        return Snapshot(
            taken_at=now, started_at=now - (self._clock.monotonic() - self._began), version=__version__,
            workspaces=tuple(workspaces),
            triggers=tuple(self._trigger(each) for each in self._triggers),
            store=await self._store(), books=await self._books(),
            rejections=tuple(await self._ledger.look(ahead.latest_rejections, limit=REJECTIONS)),
            conditions=conditions, unserved_at_risk=at_risk, clock_difference_seconds=self._clock.difference,
        )  # fmt: skip

    async def alarm(self) -> None:
        """Tell of pairs that may expire unread, before they do: at once when they become more, then every hour.

        Tell too of those that have expired since the last look.
        """
        now = self._clock.wall()
        expired = await self._ledger.look(ahead.expired)
        for name, each in self._harvesting.wired.items():
            seen = await self._ledger.look(ahead.outlook, name, now=now)
            if self._again(name, seen.at_risk):
                left = None if seen.nearest_deadline is None else round((seen.nearest_deadline - now) / 3600, 1)
                log.error("pairs_at_risk", workspace=name, pairs=seen.at_risk, hours_to_nearest_deadline=left,
                          hold_cause=each.pacer.state().held_because)  # fmt: skip
            if expired.get(name, 0) > self._expired.get(name, expired.get(name, 0)):
                log.error("pairs_expired", workspace=name, pairs=expired[name] - self._expired[name],
                          hint="their last numbers are lost; see harvester status")  # fmt: skip
        self._expired = {name: expired.get(name, 0) for name in self._harvesting.wired}

    def _again(self, what: str, count: int) -> bool:
        """Tell whether it is time to raise an alarm: there are more than last time, or that was an hour ago."""
        now = self._clock.monotonic()  # the time of day may be corrected by days
        before, told_at = self._told.get(what, (0, 0.0))
        if not count:
            self._told.pop(what, None)
        elif count > before or now - told_at >= ALARM_SECONDS:
            self._told[what] = (count, now)
            return True
        return False

    async def _workspace(
        self, name: str, each: Wired, now: float, *, expired: int, halted_since: float | None
    ) -> WorkspaceNow:
        state, seen = each.pacer.state(), await self._ledger.look(ahead.outlook, name, now=now)
        return WorkspaceNow(
            name=name, pace=state.pace, in_flight=state.in_flight, window=self._histories[name].window,
            held_because=state.held_because, held_until=now + state.held_seconds,
            halted_because=each.client.halted_because, halted_since=halted_since,
            waited_seconds=state.waited_seconds, readings=seen.readings, at_risk=seen.at_risk, expired=expired,
            last_captured_at=each.client.last_captured_at or (self._last_captures or {}).get(name, 0.0),
            nearest_deadline=seen.nearest_deadline, deadlines=seen.days,
            calls=dict(each.client.calls), answers=dict(each.client.answers),
        )  # fmt: skip

    async def keep_paces(self) -> None:
        """Store the sustained pace of each workspace in the ledger, so that other commands know what is at risk."""
        for name, each in self._harvesting.wired.items():
            pace, kept = self._sustained(name, each), self._paces.get(name)
            if kept is None or abs(pace - kept) > PACE_TOLERANCE * max(pace, kept):
                await self._ledger.do(ahead.keep_pace, name, pace)
                self._paces[name] = pace

    def _sustained(self, name: str, each: Wired) -> float:
        """Give the calls per second that can be kept up, over hours, if others go on as they are.

        Halted workspaces and unavailable endpoints do not lower it: they are conditions.
        """
        workspace, state = self._settings.workspaces[name], each.pacer.state()
        if not state.limit:
            return workspace.max_rate
        window = self._histories[name].window
        others = window.others / max(self._clock.wall() - window.began_at, 60.0)
        return max(0.0, min(state.limit * (1 - workspace.reserve) / 3600 - others, workspace.max_rate))

    def _trigger(self, listening: Listening) -> Trigger:
        return Trigger(
            name=listening.name, kind=self._settings.triggers[listening.name].kind, connected=listening.problem is None,
            last_error=listening.problem, messages=dict(listening.outcomes),
        )  # fmt: skip

    async def _store(self) -> Store:
        tallies = [each.harvest.tally for each in self._harvesting.wired.values()]
        problem = self._harvesting.storing.problem
        return Store(
            place=self._settings.out, problem=str(problem) if problem else None,
            batches=await self._ledger.look(ahead.unstored_batches),
            sealed_bytes=await self._ledger.look(ahead.sealed_bytes),
            parts=sum(tally.parts for tally in tallies), rows=sum(tally.rows for tally in tallies),
            part_bytes=sum(tally.part_bytes for tally in tallies),
        )  # fmt: skip

    async def _books(self) -> Books:
        began = self._clock.monotonic()
        if self._balance is None or began >= self._balance.good_until:
            counted = await self._ledger.look(ledger_books.books)
            ended = self._clock.monotonic()
            self._balance = _Balance(counted, ended + min(BOOKS_SHARE * (ended - began), BOOKS_MAX_SECONDS))
        return self._balance.books
