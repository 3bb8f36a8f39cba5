"""The long-lived process: triggers in, readings by plan, parts out, until it is told to stop. Its composition root.

It owns what happens beside harvesting: keys that are replaced, owners that die, pairs that come into danger or have
settled for long. Triggers and harvest meet only in the ledger.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from harvester.engine.wiring import Connect, Harvesting, connected, first_of, plans_of
from harvester.errors import ExitCode, UsageError
from harvester.ledger import Ledger
from harvester.ledger.batches import wake
from harvester.ledger.books import pending
from harvester.ledger.intake import EnqueueCount, enqueue, prune
from harvester.ledger.ledger import LEASE_SECONDS
from harvester.ledger.outlook import outlook
from harvester.ledger.plans import follow
from harvester.model import DAY_SECONDS, Enqueued
from harvester.monitor.conditions import Conditions
from harvester.monitor.watch import Watch
from harvester.settings import Settings
from harvester.signals import stop_on_signals
from harvester.sources.brokers import create_broker
from harvester.sources.message import MessageParser
from harvester.sources.trigger import Trigger
from harvester.storage import Compression, Sink
from harvester.web.server import Face

KEYS_SECONDS = 5.0
"""How often the files of keys are looked at."""

NOTE_SECONDS = 15.0
RECOVERY_SECONDS = LEASE_SECONDS / 4
"""How often it takes back what dead processes held: their readings lie for a lease and a quarter at the most."""

REPORT_SECONDS = 5.0
"""How often it is looked whether a part has stopped working, or works again."""

DRAIN_SECONDS = 0.25
DRAIN_MAX_SECONDS = 120.0
HOUSEKEEPING_SECONDS = 600.0

log = structlog.get_logger()


class Service:
    """One service over one ledger and one sink."""

    def __init__(
        self, settings: Settings, *, ledger: Ledger, sink: Sink, compression: Compression,
        until_idle: bool = False, connect: Connect = connected,
    ) -> None:  # fmt: skip
        """Take what is open already. ``until_idle``: it ends once the queues are empty and nothing is due.

        Raises ``UsageError`` for a trigger whose client or URL is missing.
        """
        self._settings = settings
        self._ledger = ledger
        self._clock = ledger.clock
        self._until_idle = until_idle
        self._harvesting = Harvesting(
            settings, ledger=ledger, sink=sink, compression=compression, lasting=not until_idle,
            connect=connect,
        )  # fmt: skip
        self._triggers = [
            Trigger(
                name, create_broker(each.kind, **each.options()),
                parser=MessageParser(tuple(settings.workspaces), each.prefixes),
                enqueue=self.enqueue, clock=self._clock, jitter=random.Random(),  # noqa: S311 - jitter, no secret
            )
            for name, each in settings.triggers.items()
        ]  # fmt: skip
        self.conditions = Conditions(
            harvesting=self._harvesting, triggers=self._triggers, ledger=ledger, clock=self._clock
        )  # fmt: skip
        self.watch = Watch(
            settings, ledger=ledger, harvesting=self._harvesting, triggers=self._triggers, conditions=self.conditions,
        )  # fmt: skip
        self._undrained = False
        self._pruned_at = 0.0

    def stop(self) -> None:
        """Take nothing more in, claim no more, and let what is in flight land."""
        self._listen_no_more()
        self._harvesting.stop()

    async def serve(self) -> ExitCode:
        """Serve until ``stop``, a signal, or idleness.

        Raises ``UsageError`` for settings that are not usable, ``StorageError`` where ledger or sink fail for good.
        """
        for name, plan in plans_of(self._settings).items():
            await self._ledger.do(follow, name, plan)
        async with self._harvesting.opened():
            with stop_on_signals(self.stop):
                try:
                    async with self._face(), asyncio.TaskGroup() as group:
                        await self._work(group)
                except* Exception as failures:  # noqa: BLE001 - a group is unwrapped: one clear error is what a user can act on
                    raise first_of(failures) from None
        return await self._exit_code()

    async def _work(self, group: asyncio.TaskGroup) -> None:
        """Let triggers, harvest and what is beside it run, and end them in the order in which nothing is cut off."""
        beside = [
            group.create_task(self._every(NOTE_SECONDS, self._note), name="history"),
            group.create_task(self._every(REPORT_SECONDS, self._report), name="conditions"),
            group.create_task(self._every(RECOVERY_SECONDS, self._harvesting.recover), name="recovery"),
            group.create_task(self._every(HOUSEKEEPING_SECONDS, self._keep_house), name="housekeeping"),
        ]
        if any(each.api_key_file for each in self._settings.workspaces.values()):
            beside.append(group.create_task(self._every(KEYS_SECONDS, self._look_at_keys), name="keys"))
        triggers = [group.create_task(each.run(), name=f"trigger {each.name}") for each in self._triggers]
        if self._until_idle:
            await self._drained()
        await self._harvesting.run()
        self._listen_no_more()
        if triggers:
            await asyncio.wait(triggers)
        for task in beside:
            task.cancel()

    async def enqueue(self, arrivals: Sequence[Enqueued], *, once: bool) -> EnqueueCount:
        """Take pairs in: they are in the ledger, durably, on return. Raises ``LedgerError``."""
        clock = self._clock
        count = await self._ledger.do(enqueue, arrivals, now=clock.wall(), once=once, confirmed=clock.confirmed)
        if count.in_question is not None:
            await self._harvesting.confirm_time(count.in_question.workspace)
            # A message comes once: where no answer can be had, the machine's clock has to do.
            await self._ledger.do(enqueue, arrivals, now=clock.wall(), once=once)
        self._harvesting.look()
        return count

    @asynccontextmanager
    async def _face(self) -> AsyncIterator[None]:
        """Show the service where it is to be seen."""
        settings = self._settings
        async with Face(
            look=self.watch.look, clock=self._clock, host=settings.web_host, port=settings.web_port
        ) as face:
            log.info("service_started", url=face.url, workspaces=len(settings.workspaces))
            yield

    def _listen_no_more(self) -> None:
        for each in self._triggers:
            each.stop()

    async def _drained(self) -> None:
        """Take in what the queues hold, until each was seen empty once: what comes later waits for the next start.

        A queue that never is, or that cannot be read, is left after a while: deadlines do not wait for it.
        """
        began = self._clock.monotonic()
        full = {each.name for each in self._triggers}
        while full and not self._harvesting.stopped:
            full -= {each.name for each in self._triggers if each.empty}
            if full and self._clock.monotonic() - began > DRAIN_MAX_SECONDS:
                self._undrained = True
                log.error(
                    "drain_timed_out", triggers=sorted(full), hint="the next start reads the messages that remain"
                )
                break
            await asyncio.sleep(DRAIN_SECONDS)
        self._listen_no_more()

    async def _exit_code(self) -> ExitCode:
        if self._harvesting.storing.problem is not None:
            raise self._harvesting.storing.problem
        if not self._until_idle:
            return ExitCode.COMPLETE
        if any(each.client.halted_because for each in self._harvesting.wired.values()):
            return ExitCode.HALTED
        left = await self._count_left()
        for name, count in left.items():
            log.error("readings_unfinished", workspace=name, readings=count, hint="start again to capture them")
        if left and self._harvesting.stopped:
            return ExitCode.INTERRUPTED
        return ExitCode.PARTIAL if left or self._undrained else ExitCode.COMPLETE

    async def _count_left(self) -> dict[str, int]:
        """Count the readings of each workspace that are due or deferred, where there are any."""
        left = {}
        for name in self._harvesting.wired:
            readings = (await self._ledger.look(outlook, name, now=self._clock.wall())).readings
            if count := readings.get("due", 0) + readings.get("deferred", 0):
                left[name] = count
        return left

    async def _every(self, seconds: float, duty: Callable[[], Awaitable[None]]) -> None:
        while True:
            await duty()
            await asyncio.sleep(seconds)

    async def _note(self) -> None:
        self.watch.note()
        await self.watch.keep_paces()
        await self._ledger.keep_clock_difference()

    async def _report(self) -> None:
        """Log the conditions. A ledger that was taken away ends the service: what it captured would be gone with it."""
        self.conditions.report()
        if self._ledger.lost is not None:
            raise self._ledger.lost

    async def _look_at_keys(self) -> None:
        """Take over a key that was replaced in its file, and probe with it at once if the old one was refused."""
        for name, each in self._harvesting.wired.items():
            workspace = self._settings.workspaces[name]
            if workspace.api_key_file is None:
                continue
            try:
                key = await asyncio.to_thread(workspace.key)
            except UsageError as error:  # half written, perhaps: the next look will tell
                self.conditions.set_key_file(name, str(error))
                continue
            self.conditions.set_key_file(name, None)
            if each.transport.use_key(key):
                log.info("key_replaced", workspace=name)
                each.pacer.mended()
                each.harvest.look()

    async def _keep_house(self) -> None:
        """Note what expired, and forget what settled long ago."""
        now = self._clock.wall()
        for name in self._settings.workspaces:
            expired = await self._ledger.do(wake, name, now=now, confirmed=self._clock.confirmed)
            if expired:
                log.error(
                    "pairs_expired", workspace=name, pairs=expired, hint="their numbers are lost; see harvester status"
                )
        await self.watch.alarm()
        self.conditions.set_pending(await self._ledger.look(pending))
        if self._clock.confirmed and now - self._pruned_at >= DAY_SECONDS:
            self._pruned_at = now
            gone = await self._ledger.do(prune, settled_before=now - self._settings.keep_days * DAY_SECONDS)
            log.info("pairs_pruned", pairs=gone)
