"""Starts a lane for each workspace with due readings; a message wakes only its own workspace."""

import asyncio
from collections.abc import Callable, Iterable

from harvester.clock import wait_for_event
from harvester.engine.due_times import DueTimes
from harvester.engine.lane import Lane
from harvester.engine.served_workspaces import ServedWorkspaces
from harvester.engine.shared import Spawn
from harvester.engine.time_check import TimeCheck
from harvester.engine.workspaces import Workspaces
from harvester.ledger import Ledger
from harvester.settings import Changes

LINGER_SECONDS = 1.0
"""The delay between an enqueue and the claim, so that pairs enqueued one by one share a part."""

POLL_SECONDS = 10.0
"""How often a service reads the due times of all workspaces, since other processes can enqueue pairs."""

SHARED_POLL_SECONDS = 5.0
"""The same while several replicas share the ledger: pairs of any workspace may be enqueued by any of them."""

SPACING_SECONDS = 0.25
"""The least time between two polls."""

TIME_PROBES = 50
"""How many workspaces one poll searches for a pair whose request can confirm the time."""


class Dispatcher:
    """Owns the lanes of a process."""

    def __init__(
        self,
        ledger: Ledger,
        workspaces: Workspaces,
        *,
        make_lane: Callable[[str], Lane],
        spawn: Spawn,
        time: TimeCheck,
        served: ServedWorkspaces,
        on_time_changed: Callable[[], None],
        until_stopped: bool,
    ) -> None:
        """With ``until_stopped``, serve until ``stop``. Otherwise each workspace with open pairs has one lane.

        ``on_time_changed`` is called when the time was confirmed or moved.
        """
        self.lanes: dict[str, Lane] = {}
        self._ledger = ledger
        self._clock = ledger.clock
        self._workspaces = workspaces
        self._make_lane = make_lane
        self._spawn = spawn
        self._time = time
        self._served = served
        self._on_time_changed = on_time_changed
        self._until_stopped = until_stopped
        self.more_pairs = False
        """Whether a run continues when no lane is left, because more pairs will be enqueued. ``finish`` unsets it."""
        self._running = False
        self._due_times = DueTimes(ledger, workspaces.names)
        self._moves = -1
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped.is_set()

    def wake(self, names: Iterable[str]) -> None:
        """Read the due times of these workspaces again: pairs were enqueued, or a key was replaced.

        In a run, this starts a lane for each workspace that has none.
        """
        for name in names:
            if name in self.lanes:
                self.lanes[name].wake(due=True)
            elif name not in self._workspaces:
                continue
            elif self._until_stopped:
                self._due_times.expect_change(name, seconds=LINGER_SECONDS)
            elif self._running and not self.stopping:
                self._start(name)
        self._changed.set()

    def refresh(self, names: Iterable[str]) -> None:
        """Read the due times of these workspaces at once: a batch was sealed, or the time was corrected."""
        for name in names:
            if not self._until_stopped and name in self.lanes:
                self.lanes[name].wake()
            if name in self._workspaces:
                self._due_times.expect_change(name)
        self._changed.set()

    def apply(self, changes: Changes) -> None:
        """End the lanes whose access was retired, and read the due times of workspaces that were added or changed."""
        for name in (*changes.removed, *changes.changed):
            if name in self.lanes:
                self.lanes[name].wake(due=True)
        self._served.assign()
        self.wake((*changes.added, *changes.changed))

    async def refresh_served(self) -> None:
        """Divide the workspaces again if another replica has started or ended. Raises ``LedgerError``.

        The lane of a workspace that another process serves now ends once its requests in flight have an outcome.
        """
        if not self._served.joined or not await self._served.refresh():
            return
        for name, lane in self.lanes.items():
            lane.reassigned = name not in self._served
            lane.wake(due=True)
        self._due_times.expect_changes()
        self._changed.set()

    def drop_lost(self) -> None:
        """Drop all readings whose lease was lost."""
        for lane in self.lanes.values():
            lane.requests.drop_lost()
            lane.wake(due=True)

    def stop(self) -> None:
        """Claim no more; ``run`` ends when what is in flight has an outcome."""
        self._stopped.set()
        self._changed.set()
        for lane in self.lanes.values():
            lane.wake()

    def finish(self) -> None:
        """Let a run end with its last lane: no more pairs will be enqueued."""
        self.more_pairs = False
        self._changed.set()

    async def run(self) -> None:
        """Run lanes until ``stop``; without ``until_stopped``, until the last lane ends. Raises ``LedgerError``."""
        self._running = True
        try:
            await self._run()
        finally:
            self._running = False

    async def _run(self) -> None:
        if not self._until_stopped:
            self.wake(await self._ledger.reports.list_unfinished_workspaces())
        else:
            await self._served.join()
        while self._until_stopped and not self.stopping:
            self._changed.clear()
            if await self._poll():
                await self._request_time()
            self._check_time()
            self._start_due()
            await wait_for_event(self._changed, timeout_seconds=self._due_times.seconds_to_next())
            await wait_for_event(self._stopped, timeout_seconds=SPACING_SECONDS)
        if self._until_stopped:
            await self._served.leave()
        while self.lanes or (self.more_pairs and not self.stopping):
            self._changed.clear()
            await self._changed.wait()

    async def _poll(self) -> bool:
        """Read the due times that may have changed, every ``POLL_SECONDS`` all; returns whether it read all."""
        seconds = POLL_SECONDS if self._served.alone else SHARED_POLL_SECONDS
        read_all = await self._due_times.read(self._workspaces.names, all_seconds=seconds)
        if read_all and not self._served.alone:
            of_others = [name for name in self._due_times.list_due() if name not in self._served]
            await self._served.take_over_unserved(of_others)
        return read_all

    async def _request_time(self) -> None:
        """Make a request for the time, if the next step depends on it."""
        if not self._time.may_request_time or not self._workspaces:
            return
        planned = self._due_times.list_planned()
        names = sorted(self._workspaces.names, key=lambda name: name not in planned)
        first = int(self._clock.monotonic() // POLL_SECONDS) * TIME_PROBES % len(names)
        probed = (names[first:] + names[:first])[:TIME_PROBES]
        await self._time.request_time_if_needed(probed, self._workspaces.find_client)

    def _check_time(self) -> None:
        """Act on a time that was confirmed or has moved."""
        if self._clock.confirmed and self._clock.moves != self._moves:
            self._moves = self._clock.moves
            self._on_time_changed()

    def _start_due(self) -> None:
        """Start a lane for each workspace with a due reading, or wake the one that runs."""
        for name in self._due_times.take_due():
            if name in self.lanes:
                self.lanes[name].wake(due=True)
            elif name in self._workspaces and name in self._served and not self.stopping:
                self._start(name)

    def _start(self, name: str) -> None:
        self.lanes[name] = self._make_lane(name)
        self._spawn(self._run_lane(name))

    async def _run_lane(self, name: str) -> None:
        lane = self.lanes[name]
        try:
            await lane.run()
        finally:
            del self.lanes[name]
            self._served.return_to_owner(name)
            if name in self._workspaces:
                self._workspaces.get(name)  # it is idle from now on
                self._due_times.expect_change(name)
            self._changed.set()
        # A run has no poll that would notice pairs that were enqueued while the lane ended.
        again = (lane.retired or lane.more_due) and not self._until_stopped and not self.stopping
        if again and name in self._workspaces:
            self._start(name)
