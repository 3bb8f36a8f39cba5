"""Uploads sealed parts to their place: the last steps of the batch protocol, for new batches and for recovered ones.

What is sealed is safe in the ledger, so a place that is unavailable only costs time: uploads are repeated, and
capturing continues until the ledger contains as many sealed bytes as it may.
"""

import asyncio
import hashlib
import random
from dataclasses import dataclass
from enum import Enum

import structlog

from harvester.clock import Clock, wait_for_event
from harvester.errors import PartConflict, SinkClosed, SinkError, SinkRefused
from harvester.ledger import Ledger
from harvester.model import Part
from harvester.observability.traces import NO_SPAN, Span
from harvester.storage import Sink

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0

log = structlog.get_logger()


class _Phase(Enum):
    """How far the uploads of a process are."""

    OPEN = "open"
    """More batches may be added."""
    FINISHING = "finishing"
    """All batches were added."""
    ENDED = "ended"
    """All are stored, or the place was given up."""


@dataclass(slots=True)
class _Outage:
    """A place that is unavailable: why, since when in monotonic seconds, and the failed attempts."""

    problem: SinkError
    since: float
    failures: int = 0


class Uploader:
    """Uploads sealed batches to the sink, one after the other."""

    def __init__(
        self, ledger: Ledger, sink: Sink, *, clock: Clock, jitter: random.Random,
        max_sealed_bytes: int, patience_seconds: float,
    ) -> None:  # fmt: skip
        """Keep at most about ``max_sealed_bytes``; give up a place that was unavailable for ``patience_seconds``.

        It is given up only once nothing else is left to do: after ``finish``, or when no more bytes may be kept.
        """
        self.destination = ""
        """The id of the dataset that takes the parts; set it before ``recover``."""
        self._ledger = ledger
        self._sink = sink
        self._clock = clock
        self._jitter = jitter
        self._max_sealed_bytes = max_sealed_bytes
        self._patience_seconds = patience_seconds
        self._waiting: dict[str, tuple[int, Span]] = {}
        """The bytes and the span of each sealed batch that is not stored yet, the oldest first."""
        self._sealed_bytes = 0
        self._outage: _Outage | None = None
        self._conflict: PartConflict | None = None
        self._phase = _Phase.OPEN
        self._full_reported = False
        self._expected: str | None = None
        self._stopping = asyncio.Event()
        self._work = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def problem(self) -> SinkError | None:
        """Why parts cannot be stored; None while they can. At the end, also why a batch was set aside."""
        if self._outage is not None:
            return self._outage.problem
        return self._conflict if self._phase is _Phase.ENDED else None

    @property
    def waiting(self) -> int:
        """Return the number of sealed batches that are not stored yet."""
        return len(self._waiting)

    @property
    def away_seconds(self) -> float:
        """Return for how many seconds parts could not be stored; 0 while they can."""
        return 0.0 if self._outage is None else self._clock.monotonic() - self._outage.since

    @property
    def full(self) -> bool:
        """Whether the sealed bytes have reached ``max_sealed_bytes``."""
        return self._sealed_bytes >= self._max_sealed_bytes

    def add(self, batch_id: str, size_bytes: int, *, span: Span = NO_SPAN) -> None:
        """Upload a sealed batch, whose parts are in the ledger; one that is waiting already is not added twice."""
        if batch_id in self._waiting:
            return
        self._waiting[batch_id] = (size_bytes, span)
        self._sealed_bytes += size_bytes
        self._work.set()

    async def recover(self) -> list[str]:
        """Recover what dead processes held; what they had sealed for this dataset is uploaded.

        Returns the ids of the batches that were sealed for another dataset, which are skipped.
        """
        others = []
        for batch in await self._ledger.batches.recover():
            if batch.destination == self.destination:
                self.add(batch.batch_id, batch.size_bytes)
            else:
                others.append(batch.batch_id)
                log.warning("batch_skipped", batch_id=batch.batch_id, reason="it was sealed for another dataset")
        return others

    def expect_dataset(self, dataset_id: str, problem: SinkError) -> None:
        """Start although the place is unavailable; the first upload checks that it still contains this dataset."""
        self._expected = dataset_id
        self._record_failure(problem)

    def finish(self) -> None:
        """Let ``run`` end when all that was added is stored."""
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.FINISHING
        self._work.set()

    def stop(self) -> None:
        """Make one more attempt for what waits."""
        self._stopping.set()
        self._room.set()

    async def wait_for_room(self) -> bool:
        """Wait until more may be claimed; False if nothing more will be uploaded."""
        if self.full and not self._stopping.is_set() and not self._full_reported:
            self._full_reported = True
            log.warning("sealed_limit_reached", sealed_bytes=self._sealed_bytes, reason=str(self.problem or "storing"))
        while self.full and self._phase is not _Phase.ENDED and not self._stopping.is_set():
            self._room.clear()
            await self._room.wait()
        return not self.full

    async def run(self) -> None:
        """Upload what is added until it is finished or given up; what is not stored stays sealed, see ``problem``.

        Raises ``SinkClosed`` if the place takes no more parts, ``SinkRefused`` if it must not, and ``LedgerError``.
        """
        while self._waiting or self._phase is _Phase.OPEN:
            if not self._waiting and self._expected is None:
                self._work.clear()
                await self._work.wait()
                continue
            try:
                await self._attach_expected()
                await self._store_next()
            except (SinkClosed, SinkRefused):
                raise
            except SinkError as error:
                self._record_failure(error)
                if self._should_give_up():
                    break
                await self._pause()
            else:
                self._record_success()
        self._phase = _Phase.ENDED
        self._room.set()
        if not self._waiting:
            self._outage = None

    async def _store_next(self) -> None:
        """Store the batch that has waited longest, if there is one. A conflict sets it aside. Raises ``SinkError``."""
        if not self._waiting:
            return
        batch_id, (size_bytes, span) = next(iter(self._waiting.items()))
        try:
            await self._store(batch_id)
            span.end(state="stored")
        except PartConflict as error:
            log.error("part_conflict", batch_id=batch_id, reason=str(error))  # noqa: TRY400 - a sentence, no trace
            self._conflict = error
            span.end(state="conflict")
        del self._waiting[batch_id]
        self._sealed_bytes -= size_bytes

    async def _attach_expected(self) -> None:
        if self._expected is None:
            return
        if await self._sink.attach(self._ledger.ledger_id, known=self._expected) != self._expected:
            message = "contains a different dataset than before; restore the previous one, or choose another place"
            raise SinkRefused(f"{self._sink.place} {message}")
        self._expected = None

    async def _store(self, batch_id: str) -> None:
        """Create each part of a batch and mark it as stored. On ``SinkError``, the remaining parts stay sealed."""
        for part in await self._ledger.batches.list_sealed_parts(batch_id):
            try:
                _check(part)
                await self._sink.create(part)
            except PartConflict:
                await self._ledger.batches.mark_conflict(batch_id)
                raise
            await self._ledger.batches.mark_stored(batch_id, dataset=part.dataset, destination=part.destination)

    def _record_failure(self, error: SinkError) -> None:
        if self._outage is None:
            self._outage = _Outage(error, self._clock.monotonic())
        self._outage.problem = error
        self._outage.failures += 1

    def _record_success(self) -> None:
        self._outage = None
        if not self.full:
            self._full_reported = False
            self._room.set()

    def _should_give_up(self) -> bool:
        """Return whether only the place delays the end, and has for too long."""
        finishing = self._phase is _Phase.FINISHING
        if finishing and self._stopping.is_set():
            return True
        return (finishing or self.full) and self.away_seconds >= self._patience_seconds

    async def _pause(self) -> None:
        """Wait before the next attempt. After a stop, wait for the last batch, and make one more attempt then."""
        if self._stopping.is_set() and self._phase is _Phase.OPEN:
            self._work.clear()
            await self._work.wait()
            return
        failures = self._outage.failures if self._outage else 1
        seconds = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), MAX_PAUSE_SECONDS)
        await wait_for_event(self._stopping, timeout_seconds=seconds * self._jitter.uniform(0.75, 1.0))


def _check(part: Part) -> None:
    """Raise ``PartConflict`` unless the bytes are those that were sealed."""
    if hashlib.sha256(part.data).hexdigest() != part.sha256:
        raise PartConflict(
            f"the bytes of {part.name} in the ledger are damaged and were not stored; check the disk, "
            "and capture its pairs again into a new place"
        )
