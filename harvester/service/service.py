"""The long-lived process and its composition root: triggers, engine, monitor and web server, until it stops.

Triggers and the engine share nothing but the ledger.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from harvester.engine.engine import Engine
from harvester.engine.workspaces import Connect
from harvester.errors import ExitCode, find_first_error
from harvester.ledger import EnqueueResult, Ledger
from harvester.model import SentPair
from harvester.monitor.conditions import Conditions
from harvester.monitor.deadline_alerts import DeadlineAlerts
from harvester.monitor.monitor import Monitor
from harvester.service.reload import Reload
from harvester.settings import Settings, SettingsSource
from harvester.settings.triggers import TriggerSettings
from harvester.signals import stop_on_signals
from harvester.sources.brokers import create_broker
from harvester.sources.messages.message import MessageParser
from harvester.sources.messages.trigger import Trigger
from harvester.storage import Compression, Sink
from harvester.web.server import WebServer

SAMPLE_SECONDS = 15.0

REPORT_SECONDS = 5.0
"""How often conditions are checked and logged."""

DRAIN_SECONDS = 0.25
DRAIN_MAX_SECONDS = 120.0

log = structlog.get_logger()


class Service:
    """One service over one ledger and one sink."""

    def __init__(
        self,
        settings: Settings,
        source: SettingsSource | None = None,
        *,
        ledger: Ledger,
        sink: Sink,
        compression: Compression,
        until_idle: bool = False,
        connect: Connect | None = None,
    ) -> None:
        """Build the service from an open ledger and sink. ``until_idle``: end once queues are empty and nothing is due.

        The ``settings`` are loaded again from ``source`` when its files change.

        Raises ``UsageError`` for a trigger whose client or URL is missing.
        """
        self._settings = settings
        self._ledger = ledger
        self._clock = ledger.clock
        self._until_idle = until_idle
        self._engine = Engine(
            settings,
            ledger=ledger,
            sink=sink,
            compression=compression,
            until_stopped=not until_idle,
            connect=connect,
            after_housekeeping=self._alert,
        )
        self._triggers = [self._make_trigger(name, each) for name, each in settings.triggers.items()]
        self.conditions = Conditions(engine=self._engine, triggers=self._triggers, ledger=ledger, clock=self._clock)
        self.monitor = Monitor(
            settings,
            ledger=ledger,
            engine=self._engine,
            triggers=self._triggers,
            conditions=self.conditions,
        )
        self._alerts = DeadlineAlerts(ledger, self._engine.workspaces)
        self._reload = (
            None if source is None
            else Reload(source, ledger=ledger, engine=self._engine, conditions=self.conditions)
        )  # fmt: skip
        self._drain_timed_out = False

    def _make_trigger(self, name: str, trigger: TriggerSettings) -> Trigger:
        return Trigger(
            name,
            create_broker(trigger.kind, **trigger.options()),
            parser=MessageParser(self._engine.workspaces, trigger.prefixes),
            enqueue=self.enqueue,
            clock=self._clock,
            jitter=random.Random(),  # noqa: S311 - jitter, no secret
        )

    def stop(self) -> None:
        """Stop the triggers, claim nothing more, and let requests in flight finish."""
        self._stop_triggers()
        self._engine.stop()

    def reload(self) -> None:
        """Load the settings again now, even if no file has changed."""
        if self._reload is not None:
            self._reload.request()

    async def serve(self) -> ExitCode:
        """Serve until ``stop``, a signal, or, with ``until_idle``, until nothing is left to do.

        Raises ``UsageError`` for settings that are not usable, ``StorageError`` if ledger or sink fail permanently.
        """
        await self._ledger.intake.set_plans(self._settings.get_plans())
        await self._alerts.start()
        async with self._engine.opened():
            with stop_on_signals(self.stop, self.reload):
                try:
                    async with self._web_server(), asyncio.TaskGroup() as group:
                        await self._work(group)
                except* Exception as failures:  # noqa: BLE001 - a group is unwrapped: one clear error is what a user can act on
                    self.conditions.log_changes()  # such as a lost ledger, which ended the service
                    raise find_first_error(failures) from None
        log.info("service_stopped")
        return await self._exit_code()

    async def _work(self, group: asyncio.TaskGroup) -> None:
        """Run triggers, engine and periodic tasks, and end them in an order that interrupts no work."""
        periodic = [
            group.create_task(self._every(SAMPLE_SECONDS, self._sample), name="history"),
            group.create_task(self._every(REPORT_SECONDS, self._check_conditions), name="conditions"),
        ]
        if self._reload is not None:
            periodic.append(group.create_task(self._reload.run(), name="reload"))
        triggers = [group.create_task(each.run(), name=f"trigger {each.name}") for each in self._triggers]
        if self._until_idle:
            await self._drain()
        await self._engine.run()
        self._stop_triggers()
        if triggers:
            await asyncio.wait(triggers)
        for task in periodic:
            task.cancel()

    async def enqueue(self, arrivals: Sequence[SentPair], *, once: bool) -> EnqueueResult:
        """Enqueue pairs durably. Raises ``LedgerError``."""
        count = await self._ledger.intake.enqueue(arrivals, once=once)
        if count.in_question is not None:
            await self._engine.confirm_time(count.in_question.workspace)
            # A message is received once. Without a response from Braze, the clock of leases decides.
            await self._ledger.intake.enqueue(arrivals, once=once, trust_clock=True)
        self._engine.wake({each.pair.workspace for each in arrivals})
        return count

    @asynccontextmanager
    async def _web_server(self) -> AsyncIterator[None]:
        """Serve the status page, the probes and the metrics."""
        settings = self._settings
        async with WebServer(
            take_snapshot=self.monitor.snapshot,
            clock=self._clock,
            host=settings.web_host,
            port=settings.web_port,
            reports=self._ledger.reports,
            served=self._engine.workspaces,
        ) as server:
            replica = self._ledger.batches.owner
            log.info("service_started", url=server.url, workspaces=len(settings.workspaces), replica=replica)
            yield

    def _stop_triggers(self) -> None:
        for each in self._triggers:
            each.stop()

    async def _drain(self) -> None:
        """Read the queues until each was empty once.

        Later messages wait for the next start. Stop after ``DRAIN_MAX_SECONDS`` even if a queue is not empty, because
        of the deadlines of pairs.
        """
        began = self._clock.monotonic()
        remaining = {each.name for each in self._triggers}
        while remaining and not self._engine.stopped:
            remaining -= {each.name for each in self._triggers if each.empty}
            if remaining and self._clock.monotonic() - began > DRAIN_MAX_SECONDS:
                self._drain_timed_out = True
                log.error(
                    "drain_timed_out", triggers=sorted(remaining), hint="the next start reads the messages that remain"
                )
                break
            await asyncio.sleep(DRAIN_SECONDS)
        self._stop_triggers()

    async def _exit_code(self) -> ExitCode:
        if self._engine.uploader.problem is not None:
            raise self._engine.uploader.problem
        if not self._until_idle:
            return ExitCode.COMPLETE
        if any(each.client.endpoint.halt for each in self._engine.workspaces.list_access().values()):
            return ExitCode.HALTED
        unfinished = await self._count_unfinished()
        for name, count in unfinished.items():
            log.error("readings_unfinished", workspace=name, readings=count, hint="start again to capture them")
        if unfinished and self._engine.stopped:
            return ExitCode.INTERRUPTED
        return ExitCode.PARTIAL if unfinished or self._drain_timed_out else ExitCode.COMPLETE

    async def _count_unfinished(self) -> dict[str, int]:
        """Return the number of due or deferred readings of each workspace that has any."""
        unfinished = {}
        names = self._engine.workspaces.names
        outlooks = await self._ledger.reports.get_outlooks(names)
        for name in names:
            readings = outlooks[name].readings
            if count := readings.get("due", 0) + readings.get("deferred", 0):
                unfinished[name] = count
        return unfinished

    async def _every(self, seconds: float, task: Callable[[], Awaitable[object]]) -> None:
        while True:
            await task()
            await asyncio.sleep(seconds)

    async def _sample(self) -> None:
        self.monitor.sample()
        await self.monitor.store_paces()
        await self._ledger.save_clock_difference()

    async def _check_conditions(self) -> None:
        """Log the conditions. A lost ledger ends the service, because captures would be lost with it."""
        self.conditions.report()
        if self._ledger.lost is not None:
            raise self._ledger.lost

    async def _alert(self) -> None:
        """Log alerts, and count the pairs of workspaces that are not configured."""
        await self._alerts.log_new()
        self.conditions.set_pending(await self._ledger.reports.count_pending())
