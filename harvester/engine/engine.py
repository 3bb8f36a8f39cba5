"""The engine of a process: captures the due readings of all workspaces. It does not know who enqueued the pairs."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from harvester.condition import Condition
from harvester.engine.capacity import Capacity
from harvester.engine.claims import Claims
from harvester.engine.committer import Committer
from harvester.engine.conditions import find_ledger_condition, find_store_conditions, find_workspace_condition
from harvester.engine.counters import Counters
from harvester.engine.dispatcher import Dispatcher
from harvester.engine.halts import Halts
from harvester.engine.lane import Lane
from harvester.engine.lease import Lease
from harvester.engine.patience import Patience
from harvester.engine.periodic_work import AfterHousekeeping, PeriodicWork
from harvester.engine.places import OpenSink, Places
from harvester.engine.served_workspaces import ServedWorkspaces
from harvester.engine.shared import Shared
from harvester.engine.time_check import MAX_TIME_REQUESTS, TimeCheck
from harvester.engine.uploader import Uploader
from harvester.engine.workspaces import Connect, Workspaces
from harvester.errors import SinkError, find_first_error
from harvester.ledger import Ledger
from harvester.settings import DUPLICATE_WORKSPACE_HINT, Changes, Settings
from harvester.storage import Compression, Sink, share_clients

log = structlog.get_logger()


class Engine:
    """Puts the parts of the engine together, and starts and ends them in order."""

    def __init__(
        self, settings: Settings, *, ledger: Ledger, sink: Sink, compression: Compression, until_stopped: bool = False,
        connect: Connect | None = None, after_housekeeping: AfterHousekeeping | None = None,
        open_sink: OpenSink | None = None,
    ) -> None:  # fmt: skip
        """Use an open ledger, its clock and a sink, and ``open_sink`` for the places of workspaces that have their own.

        With ``until_stopped``, it serves until ``stop``; otherwise it ends once nothing is left to wait for.

        A service also schedules, expires and deletes pairs of idle workspaces, and calls ``after_housekeeping`` then.
        """
        self.workspaces = Workspaces(settings, ledger.clock, connect)
        self.counters = Counters()
        self.time = TimeCheck(ledger)
        self.places = Places(ledger, sink, open_sink or share_clients())
        self.uploader = Uploader(
            ledger, self.places, clock=ledger.clock, jitter=random.Random(),  # noqa: S311 - jitter, no secret
            max_sealed_bytes=settings.max_sealed_bytes,
            patience_seconds=math.inf if until_stopped else settings.patience_seconds,
        )  # fmt: skip
        self._ledger = ledger
        self._patience = Patience(None if until_stopped else settings.patience_seconds)
        self._capacity = Capacity()
        self._lease = Lease(ledger, self._drop_lost)
        self._halts = Halts(ledger, self.workspaces)
        self._committer = Committer(
            ledger, self.uploader, self.places, compression=compression, lease=self._lease, capacity=self._capacity,
            counters=self.counters, on_sealed=self._refresh,
        )  # fmt: skip
        self._served = ServedWorkspaces(ledger, self.workspaces)
        self._dispatcher = Dispatcher(
            ledger, self.workspaces, spawn=self._spawn, time=self.time, served=self._served,
            make_lane=lambda name: Lane(name, self.workspaces.get(name), self._shared),
            on_time_changed=self._request_housekeeping, until_stopped=until_stopped,
        )  # fmt: skip
        self._claims = Claims(
            ledger, lease=self._lease, capacity=self._capacity, count_lanes=lambda: len(self._dispatcher.lanes)
        )
        self._periodic_work = PeriodicWork(
            ledger, lease=self._lease, uploader=self.uploader, workspaces=self.workspaces, dispatcher=self._dispatcher,
            time=self.time, counters=self.counters, keep_days=settings.keep_days,
            housekeeping=until_stopped or after_housekeeping is not None,
            after_housekeeping=after_housekeeping or _do_nothing,
        )  # fmt: skip
        self._shared = self._collect_shared()
        self._group: asyncio.TaskGroup | None = None

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._dispatcher.stopping

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Mark the datasets, recover the leases of dead processes, and load the keys; close all connections at the end.

        Raises ``UsageError`` for a missing key, ``StorageError`` if a place or the ledger cannot be used. A service of
        several places starts without the place of a sealed batch: it concerns only some workspaces.
        """
        self._ledger.keep_trying()
        self._ledger.report_as_conditions()
        self.workspaces.load_keys()
        self._warn_of_duplicates(self.workspaces)
        await self.places.apply(self.workspaces.settings)
        await self.places.attach_all(self._ledger.clock)
        if await self.uploader.recover() and not (self._patience.unlimited and self.places.only is None):
            raise SinkError(
                f"the ledger {self._ledger.location} holds a part that was sealed for another place; "
                "run once with the previous output, or choose another ledger with --state"
            )
        await self._halts.load()
        try:
            yield
        finally:
            await self.workspaces.close()

    async def run(self, *, more_pairs: bool = False) -> None:
        """Capture and upload to the end. Raises ``LedgerError``, or ``SinkClosed`` if the place takes no more parts.

        A place that fails otherwise is the ``problem`` of ``uploader``: what was sealed is in the ledger. With
        ``more_pairs``, a run waits for more pairs: call ``wake`` after each page that you enqueue, then ``finish``.
        """
        self._dispatcher.more_pairs = more_pairs
        if self.stopped:
            self.stop()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                uploading = group.create_task(self.uploader.run(), name="uploader")
                committing = group.create_task(self._committer.run(), name="committer")
                periodic = [
                    group.create_task(self._claims.run(), name="claims"),
                    group.create_task(self._periodic_work.run(), name="periodic_work"),
                ]
                await group.create_task(self._dispatcher.run(), name="dispatcher")
                self._committer.finish()
                await committing
                self.uploader.finish()
                await uploading
                for task in periodic:
                    task.cancel()
        except* Exception as failures:  # noqa: BLE001 - a group is unwrapped: one clear error is what a user can act on
            raise find_first_error(failures) from None

    def wake(self, names: Iterable[str] | None = None) -> None:
        """Check these workspaces, or all, for due readings: pairs were enqueued, or a key was replaced."""
        found = self.workspaces.names if names is None else tuple(names)
        self._dispatcher.wake(found)
        self._periodic_work.expire_soon(found)

    def finish(self) -> None:
        """Let a run end when its last pair is done: no more pairs will be enqueued."""
        self._dispatcher.finish()

    async def apply(self, settings: Settings) -> Changes:
        """Serve the workspaces of other settings, whose keys are loaded.

        What is in flight for a workspace that was removed is sealed; its pairs stay in the ledger. What was sealed for
        the previous place of a workspace is stored there. Raises ``UsageError`` for a place that cannot be opened, and
        ``LedgerError``.
        """
        await self.places.apply(settings)
        self.uploader.apply()
        await self._ledger.intake.set_plans(settings.get_plans())  # before any message of a new workspace is accepted
        found = self.workspaces.apply(settings)
        self._warn_of_duplicates({*found.added, *found.changed})
        self._dispatcher.apply(found)
        self._periodic_work.expire_soon(found.added)
        return found

    def _warn_of_duplicates(self, names: Collection[str]) -> None:
        for same in self.workspaces.settings.find_duplicates():
            if any(each in names for each in same):
                log.warning("workspace_duplicated", workspaces=same, hint=DUPLICATE_WORKSPACE_HINT)

    def serves(self, workspace: str) -> bool:
        """Return whether this process claims readings of a workspace, and not another replica.

        False before a service knows the other replicas.
        """
        return workspace in self._served and (self._served.joined or not self._patience.unlimited)

    def count_unsealed(self) -> Counter[str]:
        """Return how many pairs of each workspace are captured or rejected, but not sealed yet."""
        return self._committer.count_unsealed()

    def stop(self) -> None:
        """Stop claiming, let requests in flight finish, and do not wait for the ledger if it is unavailable."""
        self._ledger.stop_waiting()
        self._dispatcher.stop()
        self.workspaces.stop()
        self.uploader.stop()

    def conditions(self) -> list[Condition]:
        """Return the conditions of the ledger, the clock, the endpoints, the keys and the store."""
        clock = self._ledger.clock
        found = [
            find_ledger_condition(self._ledger),
            self.time.condition(),
            *(
                find_workspace_condition(name, each, self._patience, clock)
                for name, each in self.workspaces.list_access().items()
            ),
            *find_store_conditions(self.places, self.uploader, clock),
        ]
        return [each for each in found if each is not None]

    async def confirm_time(self, workspace: str) -> None:
        """Make a request of a workspace for the time, unless a response has confirmed it.

        If it has no response, the time is requested of other workspaces: those whose endpoints work come first.
        """
        failing = {name for name, each in self.workspaces.list_access().items() if not each.droppable}
        others = sorted(set(self.workspaces) - {workspace}, key=lambda name: (name in failing, name))
        for name in [workspace, *others[: MAX_TIME_REQUESTS - 1]]:
            if self._ledger.clock.confirmed:
                return
            if (client := self.workspaces.find_client(name)) is not None:
                await self.time.confirm(name, client)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        assert self._group is not None
        self._group.create_task(work)

    def _refresh(self, names: set[str]) -> None:
        self._dispatcher.refresh(names)

    def _request_housekeeping(self) -> None:
        self._periodic_work.request_housekeeping()

    def _drop_lost(self) -> None:
        self._committer.drop_lost()
        self._dispatcher.drop_lost()
        self._spawn(self.uploader.recover())

    def _collect_shared(self) -> Shared:
        """Return what all lanes use."""
        return Shared(
            ledger=self._ledger, claims=self._claims, committer=self._committer, uploader=self.uploader, time=self.time,
            halts=self._halts, patience=self._patience, lease=self._lease, capacity=self._capacity,
            workspaces=self.workspaces, spawn=self._spawn, is_stopping=lambda: self.stopped,
        )  # fmt: skip


async def _do_nothing() -> None:
    pass
