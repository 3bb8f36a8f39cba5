"""Uploads sealed parts to their place: the last steps of the batch protocol, for new batches and for recovered ones.

What is sealed is safe in the ledger, so a place that is unavailable only costs time: uploads are repeated, and
capturing continues until the ledger contains as many sealed bytes as it may.
"""

import asyncio
import hashlib
import random
from collections import deque

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


class Uploader:
    """Uploads sealed batches to the sink, one after the other."""

    def __init__(
        self, ledger: Ledger, sink: Sink, *, clock: Clock, jitter: random.Random,
        max_sealed_bytes: int, patience_seconds: float,
    ) -> None:  # fmt: skip
        """Keep at most about ``max_sealed_bytes``; give up a place that was unavailable for ``patience_seconds``.

        It is given up only once nothing else is left to do: after ``finish``, or when no more bytes may be kept.
        """
        self.problem: SinkError | None = None
        """Why parts cannot be stored; None while they can."""
        self.destination = ""
        """The id of the dataset that takes the parts; set it before ``recover``."""
        self._ledger = ledger
        self._sink = sink
        self._clock = clock
        self._jitter = jitter
        self._max_sealed_bytes = max_sealed_bytes
        self._patience_seconds = patience_seconds
        self._waiting: deque[tuple[str, int, Span]] = deque()
        self._sealed_bytes = 0
        self._away_since = 0.0
        self._failures = 0
        self._conflict: PartConflict | None = None
        self._given_up = False
        self._full_reported = False
        self._expected: str | None = None
        self._finishing = False
        self._stopping = asyncio.Event()
        self._work = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Return the number of sealed batches that are not stored yet."""
        return len(self._waiting)

    @property
    def away_seconds(self) -> float:
        """Return for how many seconds parts could not be stored; 0 while they can."""
        return self._clock.monotonic() - self._away_since if self.problem is not None else 0.0

    @property
    def full(self) -> bool:
        """Whether as many bytes wait as may wait."""
        return self._sealed_bytes >= self._max_sealed_bytes

    def add(self, batch_id: str, size_bytes: int, *, span: Span = NO_SPAN) -> None:
        """Upload a sealed batch, whose parts are in the ledger; one that is waiting already is not added twice."""
        if any(waiting == batch_id for waiting, _, _ in self._waiting):
            return
        self._waiting.append((batch_id, size_bytes, span))
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
        """Begin with a place that is unavailable because of ``problem``: it must prove to be that dataset first."""
        self._expected = dataset_id
        self._record_failure(problem)

    def finish(self) -> None:
        """Let ``run`` end when all that was added is stored."""
        self._finishing = True
        self._work.set()

    def stop(self) -> None:
        """Try what waits once more, and no longer."""
        self._stopping.set()
        self._room.set()

    async def wait_for_room(self) -> bool:
        """Wait until more may be claimed; False if nothing more will be uploaded."""
        if self.full and not self._stopping.is_set() and not self._full_reported:
            self._full_reported = True
            log.warning("sealed_limit_reached", sealed_bytes=self._sealed_bytes, reason=str(self.problem or "storing"))
        while self.full and not self._given_up and not self._stopping.is_set():
            self._room.clear()
            await self._room.wait()
        return not self.full

    async def run(self) -> None:
        """Upload what is added until it is finished or given up; what is not stored stays sealed, see ``problem``.

        Raises ``SinkClosed`` where no part will ever be taken again, ``SinkRefused`` where none must, ``LedgerError``.
        """
        while self._waiting or not self._finishing:
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
        self._given_up = bool(self._waiting)
        self._room.set()
        self.problem = (self.problem if self._waiting else None) or self._conflict

    async def _store_next(self) -> None:
        """Store the batch that has waited longest, if there is one. A conflict sets it aside. Raises ``SinkError``."""
        if not self._waiting:
            return
        batch_id, size_bytes, span = self._waiting[0]
        try:
            await self._store(batch_id)
            span.end(state="stored")
        except PartConflict as error:
            log.error("part_conflict", batch_id=batch_id, reason=str(error))  # noqa: TRY400 - a sentence, no trace
            self._conflict = error
            span.end(state="conflict")
        self._waiting.popleft()
        self._sealed_bytes -= size_bytes

    async def _attach_expected(self) -> None:
        if self._expected is None:
            return
        if await self._sink.attach(self._ledger.ledger_id, known=self._expected) != self._expected:
            message = "contains another dataset than before; restore the previous one, or choose another place"
            raise SinkRefused(f"{self._sink.place} {message}")
        self._expected = None

    async def _store(self, batch_id: str) -> None:
        """Create each part of a batch and note that it is stored. Raises ``SinkError``; the rest stays sealed then."""
        for part in await self._ledger.batches.list_sealed_parts(batch_id):
            try:
                _check(part)
                await self._sink.create(part)
            except PartConflict:
                await self._ledger.batches.mark_conflict(batch_id)
                raise
            await self._ledger.batches.mark_stored(batch_id, dataset=part.dataset, destination=part.destination)

    def _record_failure(self, error: SinkError) -> None:
        if self.problem is None:
            self._away_since = self._clock.monotonic()
        self.problem = error
        self._failures += 1

    def _record_success(self) -> None:
        self.problem = None
        self._failures = 0
        if not self.full:
            self._full_reported = False
            self._room.set()

    def _should_give_up(self) -> bool:
        """Whether nothing but the place is waited for, and that for too long."""
        if self._finishing and self._stopping.is_set():
            return True
        waited = self._clock.monotonic() - self._away_since
        return (self._finishing or self.full) and waited >= self._patience_seconds

    async def _pause(self) -> None:
        """Wait before the next try; when stopping, for the last batch, after which there is one more."""
        if self._stopping.is_set() and not self._finishing:
            self._work.clear()
            await self._work.wait()
            return
        seconds = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10), MAX_PAUSE_SECONDS)
        await wait_for_event(self._stopping, timeout_seconds=seconds * self._jitter.uniform(0.75, 1.0))


def _check(part: Part) -> None:
    """Raise ``PartConflict`` unless the bytes are those that were sealed."""
    if hashlib.sha256(part.data).hexdigest() != part.sha256:
        raise PartConflict(
            f"the ledger's bytes of {part.name} are damaged, and were not stored; check the disk, "
            "and capture its pairs again into a new place"
        )
