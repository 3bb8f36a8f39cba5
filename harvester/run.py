"""A historical capture, once: pairs into the ledger, harvest, summary. The composition root of ``harvester run``."""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from harvester.braze.client import Client
from harvester.braze.pacer import Pacer
from harvester.braze.transport import BrazeTransport
from harvester.clock import Clock
from harvester.errors import ExitCode, SinkError
from harvester.ledger import Ledger
from harvester.ledger.books import books, pending
from harvester.ledger.intake import EnqueueCount, enqueue, hurry
from harvester.model import Books
from harvester.pipeline import Harvest
from harvester.settings import Settings
from harvester.sinks import Compression, Sink
from harvester.sources import Input, RejectsFile
from harvester.storing import Storing, recover

GRACE_SECONDS = 25.0

log = structlog.get_logger()


@dataclass(slots=True)
class Summary:
    """What a run did and how the ledger stands after it."""

    books: Books
    lines: int = 0
    bad_lines: int = 0
    rejects_file: str | None = None
    naive_times: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    rows: int = 0
    part_bytes: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    waited_seconds: float = 0.0
    halted: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    unstored: int = 0
    problem: SinkError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The closed list of exit codes, the gravest first."""
        if self.problem is not None:
            return ExitCode.STORAGE
        if self.halted:
            return ExitCode.HALTED
        if self.interrupted and self.books.pending:
            return ExitCode.INTERRUPTED
        if self.books.pending or self.books.rejected or self.books.expired or self.bad_lines:
            return ExitCode.PARTIAL
        return ExitCode.COMPLETE


@dataclass(slots=True)
class _Wired:
    """One workspace, put together."""

    transport: BrazeTransport
    pacer: Pacer
    client: Client
    harvest: Harvest


class Run:
    """One run over one ledger and one sink."""

    def __init__(
        self, settings: Settings, *, ledger: Ledger, sink: Sink, clock: Clock, compression: Compression
    ) -> None:
        """Take what is open already; ``capture`` does the work."""
        self._settings = settings
        self._ledger = ledger
        self._sink = sink
        self._clock = clock
        self._storing = Storing(
            ledger, sink, clock=clock, jitter=random.Random(),  # noqa: S311 - jitter, no secret
            max_sealed_bytes=settings.max_sealed_bytes, patience_seconds=settings.store_patience_seconds,
        )  # fmt: skip
        self._compression = compression
        self.enqueued = 0
        self.lines = 0
        self.pending_at_start: dict[str, int] = {}
        self._wired: dict[str, _Wired] = {}
        self._stopped = False

    def stop(self) -> None:
        """Claim no more, and let what is in flight land."""
        self._stopped = True
        for each in self._wired.values():
            each.harvest.stop()
        self._storing.stop()

    @property
    def store_problem(self) -> SinkError | None:
        """Why sealed parts wait to be stored; None while all is well."""
        return self._storing.problem

    def progress(self) -> dict[str, tuple[Harvest, Pacer]]:
        """Give what a progress view looks at, by workspace."""
        return {name: (each.harvest, each.pacer) for name, each in self._wired.items()}

    async def capture(self, pairs: Input, rejects: RejectsFile, *, forced: bool = False) -> Summary:
        """Enqueue, harvest, sum up.

        Raises ``UsageError`` for unusable input, ``StorageError`` when a place fails from the start or the ledger at
        all. A sink that fails later is the summary's ``problem``.
        """
        keys = self._settings.keys()
        destination = await self._sink.attach(self._ledger.ledger_id)
        await recover(self._ledger, self._storing, destination)
        for name in self._settings.workspaces:
            await self._ledger.do(hurry, name, now=self._clock.wall())
        with _stopped_by_signals(self.stop):
            await self._enqueue_all(pairs, rejects, forced=forced)
            try:
                self.pending_at_start = await self._ledger.do(pending)
                for name, key in keys.items():
                    self._wired[name] = self._wire(name, key, destination)
                if self._stopped:
                    self.stop()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._storing.run(), name="storing")
                    async with asyncio.TaskGroup() as harvests:
                        for name, each in self._wired.items():
                            harvests.create_task(each.harvest.run(), name=f"harvest {name}")
                    self._storing.finish()
            except* Exception as failures:  # noqa: BLE001 - a group is unwrapped: one clear error is what a user can act on
                raise _first(failures) from None
            finally:
                for each in self._wired.values():
                    await each.transport.close()
        return await self._summary(pairs, rejects)

    def _wire(self, name: str, key: str, destination: str) -> _Wired:
        workspace, settings = self._settings.workspaces[name], self._settings
        transport = BrazeTransport(
            endpoint=workspace.endpoint, api_key=key, connections=settings.concurrency, clock=self._clock,
            timeout_seconds=settings.request_timeout_seconds,
        )  # fmt: skip
        pacer = Pacer(
            reserve=workspace.reserve, urgent_reserve=workspace.urgent_reserve, max_rate=workspace.max_rate,
            clock=self._clock, jitter=random.Random(),  # noqa: S311 - jitter, no secret
        )  # fmt: skip
        client = Client(
            transport=transport, pacer=pacer, clock=self._clock, length_days=settings.length, keep_raw=settings.raw
        )
        harvest = Harvest(
            workspace=name, ledger=self._ledger, client=client, pacer=pacer, storing=self._storing,
            destination=destination,
            clock=self._clock, compression=self._compression, concurrency=settings.concurrency,
            max_deferrals=settings.max_deferrals,
        )  # fmt: skip
        return _Wired(transport, pacer, client, harvest)

    async def _enqueue_all(self, pairs: Input, rejects: RejectsFile, *, forced: bool) -> None:
        async for count in enqueue_all(self._ledger, pairs, rejects, now=self._clock.wall(), forced=forced):
            self.enqueued += count.new + count.known
            self.lines = pairs.lines
            if self._stopped:
                return

    async def _summary(self, pairs: Input, rejects: RejectsFile) -> Summary:
        summary = Summary(
            books=await self._ledger.do(books), lines=pairs.lines, bad_lines=rejects.count,
            rejects_file=str(rejects.path) if rejects.count else None, naive_times=pairs.naive_times,
            skipped=pairs.skipped,
            interrupted=self._stopped, unstored=self._storing.waiting, problem=self._storing.problem,
        )  # fmt: skip
        for name, each in self._wired.items():
            state, tally = each.pacer.state(), each.harvest.tally
            summary.parts += tally.parts
            summary.rows += tally.rows
            summary.part_bytes += tally.part_bytes
            summary.calls += each.client.calls
            summary.answers += each.client.answers
            summary.throttled += state.throttled
            summary.waited_seconds += state.waited_seconds
            if each.client.halted_because is not None:
                summary.halted[name] = each.client.halted_because
        return summary


async def enqueue_all(
    ledger: Ledger, pairs: Input, rejects: RejectsFile, *, now: float, forced: bool = False
) -> AsyncIterator[EnqueueCount]:
    """Put all pairs of an input into the ledger; bad lines go to the rejects file. Others run in between."""
    for page in pairs.pages(rejects):
        if page:
            yield await ledger.do(enqueue, page, now=now, forced=forced)
        else:
            await asyncio.sleep(0)
            yield EnqueueCount(0, 0)


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    """Give the first failure inside nested groups."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, Exception)
    return failure


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop; the second one, or the end of the grace, cancels: the ledger makes that safe."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    timers: list[asyncio.TimerHandle] = []

    def told() -> None:
        if timers:
            task.cancel()
            return
        log.warning("stopping", hint="what is in flight lands first; a second signal ends at once")
        timers.append(loop.call_later(GRACE_SECONDS, task.cancel))
        stop()

    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    for each in signals:
        loop.add_signal_handler(each, told)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
        for timer in timers:
            timer.cancel()
