"""The harvest of all workspaces of one ledger into one sink, put together from plain settings.

It owns the transports and what is sealed but not stored. It knows nothing of where pairs come from.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from harvester.braze.client import Client
from harvester.braze.dated import DatedTransport
from harvester.braze.pacer import Pacer
from harvester.braze.transport import BrazeTransport, Transport
from harvester.clock import Clock
from harvester.engine.pipeline import Harvest
from harvester.engine.renewal import Renewal
from harvester.engine.storing import Storing
from harvester.engine.time_check import TimeCheck
from harvester.errors import SinkError, SinkRefused
from harvester.health import OUTAGE_SECONDS, Component, Condition, describe_failed_request
from harvester.ledger import Ledger
from harvester.schedule import ReadingPlan
from harvester.settings import DUPLICATE_WORKSPACE_HINT, Settings, Workspace
from harvester.storage import Compression, Sink

log = structlog.get_logger()

Connect = Callable[[Workspace, str, Settings, Clock], Transport]
"""How a workspace is reached, given its API key: the lowest seam, where a stand-in for Braze may take its place."""


def connected(workspace: Workspace, key: str, settings: Settings, clock: Clock) -> Transport:
    """Reach the real thing."""
    return BrazeTransport(endpoint=workspace.endpoint, api_key=key, connections=settings.concurrency, clock=clock)


def plans_of(settings: Settings) -> dict[str, ReadingPlan]:
    """Give the plan of readings of each workspace, as it is configured."""
    return {name: ReadingPlan(each.ages_days) for name, each in settings.workspaces.items()}


@dataclass(frozen=True, slots=True)
class Wired:
    """What serves one workspace."""

    transport: Transport
    pacer: Pacer
    client: Client
    harvest: Harvest


class Harvesting:
    """Every workspace's harvest, side by side, and the storing of what they seal."""

    def __init__(
        self, settings: Settings, *, ledger: Ledger, sink: Sink, compression: Compression,
        lasting: bool = False, connect: Connect = connected,
    ) -> None:  # fmt: skip
        """Take what is open already, and the ledger's clock. ``lasting``: it goes on until it is stopped."""
        self.wired: dict[str, Wired] = {}
        self.storing = Storing(
            ledger, sink, clock=ledger.clock, jitter=random.Random(),  # noqa: S311 - jitter, no secret
            max_sealed_bytes=settings.max_sealed_bytes,
            patience_seconds=math.inf if lasting else settings.patience_seconds,
        )  # fmt: skip
        self._renewal = Renewal(ledger, self.storing)
        self._connect = connect
        self._settings = settings
        self._ledger = ledger
        self._sink = sink
        self._clock = ledger.clock
        self.time = TimeCheck(ledger)
        self._compression = compression
        self._patience_seconds = None if lasting else settings.patience_seconds
        self.stopped = False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Mark the dataset, take back what dead processes held, and make ready; let go of all connections at the end.

        Raises ``UsageError`` for a missing key, ``StorageError`` where the sink or the ledger is not usable.
        """
        keys = self._settings.load_keys()
        for names in self._settings.find_duplicates():
            log.warning("workspace_duplicated", workspaces=names, hint=DUPLICATE_WORKSPACE_HINT)
        self.storing.destination = await self._attached()
        if await self.storing.recover():
            raise SinkError(
                f"the ledger {self._ledger.path} holds a part that was sealed for another place; "
                "run once with the previous output, or choose another ledger with --state"
            )
        for name, key in keys.items():
            self.wired[name] = self._wire(name, key)
        try:
            yield
        finally:
            for each in self.wired.values():
                await each.transport.close()

    async def _attached(self) -> str:
        """Give the dataset's id. A known place may be away: harvesting begins all the same, since parts can wait."""
        place = self._sink.place
        known = await self._ledger.reports.find_dataset(place)
        try:
            dataset_id = await self._sink.attach(self._ledger.ledger_id, known=known)
        except SinkRefused:
            raise
        except SinkError as error:
            if known is None:
                raise
            self.storing.attach_first(known, error)
            return known
        await self._ledger.upkeep.save_dataset(place, dataset_id)
        return dataset_id

    async def run(self) -> None:
        """Harvest and store to the end. Raises ``LedgerError``, or ``SinkClosed`` where nobody takes parts any more.

        A sink that fails otherwise is the ``problem`` of ``storing``: what was sealed is in the ledger.
        """
        if self.stopped:
            self.stop()
        try:
            async with asyncio.TaskGroup() as group:
                storing = group.create_task(self.storing.run(), name="storing")
                renewal = group.create_task(self._renewal.run(), name="renewal")
                async with asyncio.TaskGroup() as harvests:
                    for name, each in self.wired.items():
                        harvests.create_task(each.harvest.run(), name=f"harvest {name}")
                self.storing.finish()
                await asyncio.wait([storing])
                renewal.cancel()
        except* Exception as failures:  # noqa: BLE001 - a group is unwrapped: one clear error is what a user can act on
            raise first_of(failures) from None

    def conditions(self) -> list[Condition]:
        """Return the conditions of the clock, the endpoints, the keys and the store."""
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        clock = self.time.condition()
        found = [] if clock is None else [clock]
        for name, each in self.wired.items():
            halt, failing = each.client.endpoint.halt, each.client.endpoint.failing
            if halt is not None:
                since = wall - (monotonic - halt.since)
                found.append(Condition(Component.KEY, halt.cause, since, name, halt.reason))
            elif failing is not None and (problem := self._endpoint_problem(each)):
                since = wall - (monotonic - failing.since)
                found.append(Condition(Component.ENDPOINT, failing.cause, since, name, problem))
        store = self.storing.problem
        if store is not None:
            away = self.storing.away_seconds
            blocks = self.storing.full or away >= OUTAGE_SECONDS
            found.append(Condition(Component.STORE, store.cause, wall - away, detail=str(store), blocks=blocks))
        return found

    def _endpoint_problem(self, each: Wired) -> str:
        """Return how the last call failed, once calls have failed for long enough; otherwise an empty text.

        A run that never had an answer reports its first failure at once, since a person may be waiting.
        """
        failing = each.client.endpoint.failing
        assert failing is not None
        seconds = each.harvest.seconds_until_given_up()
        at_once = seconds is not None and not each.pacer.state().answered
        if not at_once and self._clock.monotonic() - failing.since < OUTAGE_SECONDS:
            return ""
        hope = f"; trying again for up to {seconds:.0f} s" if seconds and at_once else ""
        return describe_failed_request(each.client.endpoint.url, failing) + hope

    async def confirm_time(self, workspace: str) -> None:
        """Make one request of a workspace for the time, unless a response has confirmed it."""
        await self.time.confirm(workspace, self.wired[workspace].client)

    def look(self) -> None:
        """Claim due readings now, because pairs were enqueued."""
        for each in self.wired.values():
            each.harvest.look()

    def stop(self) -> None:
        """Stop claiming, and let requests in flight finish."""
        self.stopped = True
        for each in self.wired.values():
            each.harvest.stop()
        self.storing.stop()

    def _wire(self, name: str, key: str) -> Wired:
        workspace, settings = self._settings.workspaces[name], self._settings
        transport = self._connect(workspace, key, settings, self._clock)
        pacer = Pacer(
            reserve=workspace.reserve, max_rate=workspace.max_rate,
            clock=self._clock, jitter=random.Random(),  # noqa: S311 - jitter, no secret
        )  # fmt: skip
        client = Client(
            transport=DatedTransport(transport, self._clock), endpoint=workspace.endpoint, pacer=pacer,
            clock=self._clock, keep_raw=settings.raw,
        )  # fmt: skip
        harvest = Harvest(
            workspace=name, ledger=self._ledger, client=client, pacer=pacer, storing=self.storing,
            renewal=self._renewal, time=self.time, compression=self._compression, concurrency=settings.concurrency,
            patience_seconds=self._patience_seconds,
        )  # fmt: skip
        return Wired(transport, pacer, client, harvest)


def first_of(failures: BaseExceptionGroup[Exception]) -> Exception:
    """Give the first failure inside nested groups."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, Exception)
    return failure
