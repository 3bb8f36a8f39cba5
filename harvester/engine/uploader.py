"""Uploads sealed parts to their places: the last steps of the batch protocol, for new batches and for recovered ones.

What is sealed is safe in the ledger, so a place that is unavailable only costs time: uploads are repeated, and
capturing continues until the ledger contains as many sealed bytes as it may. Each place with work has a task of its
own, so no place waits for another.
"""

import asyncio
import random
from enum import Enum

import structlog

from harvester.clock import Clock, wait_for_event
from harvester.engine.places import Place, Places
from harvester.errors import PartConflict, SinkClosed, SinkError, SinkRefused
from harvester.ledger import Ledger
from harvester.observability.traces import NO_SPAN, Span
from harvester.storage import check_sealed

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
    """All are stored, or their places were given up."""


class Uploader:
    """Uploads sealed batches, those of one place one after the other."""

    def __init__(
        self, ledger: Ledger, places: Places, *, clock: Clock, jitter: random.Random,
        max_sealed_bytes: int, patience_seconds: float,
    ) -> None:  # fmt: skip
        """Keep at most about ``max_sealed_bytes``; give up a place that was unavailable for ``patience_seconds``.

        It is given up only once nothing else is left to do: after ``finish``, or when no more may be captured for it.
        """
        self._ledger = ledger
        self._places = places
        self._clock = clock
        self._jitter = jitter
        self._max_sealed_bytes = max_sealed_bytes
        self._patience_seconds = patience_seconds
        self._sealed_bytes = 0
        self._phase = _Phase.OPEN
        self._full_reported = False
        self._skipped: set[str] = set()
        self._stopping = asyncio.Event()
        self._finishing = asyncio.Event()
        self._work = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def problem(self) -> SinkError | None:
        """Why some parts cannot be stored; None while all can. At the end, also why a batch was set aside."""
        used = self._places.list_used()
        problems: list[tuple[Place, SinkError]] = [(each, each.outage.problem) for each in used if each.outage]
        if self._phase is _Phase.ENDED:
            problems += [(each, each.conflict) for each in used if each.conflict]
        return self._places.describe(*problems[0]) if problems else None

    @property
    def waiting(self) -> int:
        """Return the number of sealed batches that are not stored yet."""
        return sum(len(each.waiting) for each in self._places.list_used())

    def get_outage_seconds(self, place: Place) -> float:
        """Return for how many seconds parts could not be stored in a place; 0 while they can."""
        return 0.0 if place.outage is None else self._clock.monotonic() - place.outage.since

    def is_full(self, place: Place) -> bool:
        """Return whether no more may be captured for a place.

        If the sealed bytes have reached ``max_sealed_bytes``, this concerns the places with an even share of them.
        """
        if self._sealed_bytes < self._max_sealed_bytes:
            return place.dataset_id is None
        return place.dataset_id is None or place.sealed_bytes >= self._max_sealed_bytes / len(self._places.list_used())

    def add(self, batch_id: str, destination: str, size_bytes: int, *, span: Span = NO_SPAN) -> None:
        """Upload a sealed batch, whose parts are in the ledger; one that is waiting already is not added twice."""
        place = self._places.find(destination)
        assert place is not None
        if batch_id not in place.waiting:
            place.waiting[batch_id] = (size_bytes, span)
            place.sealed_bytes += size_bytes
            self._sealed_bytes += size_bytes
            self._work.set()

    async def recover(self) -> list[str]:
        """Recover what dead processes had leased; what they had sealed is uploaded to the place that it was sealed for.

        Returns the ids of the batches that were sealed for a place that the ledger does not know any more.
        """
        others = []
        for batch in await self._ledger.batches.recover():
            if self._places.find(batch.destination) or await self._places.reopen(batch.destination):
                self.add(batch.batch_id, batch.destination, batch.size_bytes)
            else:
                others.append(batch.batch_id)
        for batch_id in sorted(set(others) - self._skipped):
            hint = "name the place that contains its dataset as out, or restore that dataset"
            log.warning("batch_skipped", batch_id=batch_id, reason="it was sealed for another place", hint=hint)
        self._skipped = set(others)
        return others

    def finish(self) -> None:
        """Let ``run`` end when all that was added is stored."""
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.FINISHING
        self._finishing.set()
        self._work.set()

    def stop(self) -> None:
        """Make one more attempt for what waits."""
        self._stopping.set()
        self._room.set()

    def apply(self) -> None:
        """Attach the places that were added, and let the workspaces check their places again."""
        self._work.set()
        self._room.set()

    async def wait_for_room(self, workspace: str) -> bool:
        """Wait until more of a workspace may be claimed; False if nothing more of it will be uploaded."""
        while (place := self._places.get(workspace)) is not None and self.is_full(place):
            if place.given_up or self._stopping.is_set():
                return False
            if place.dataset_id is not None and not self._full_reported:
                self._full_reported = True
                reason = str(place.outage.problem if place.outage else "storing")
                log.warning("sealed_limit_reached", sealed_bytes=self._sealed_bytes, reason=reason)
            self._room.clear()
            await self._room.wait()
        return place is not None

    async def run(self) -> None:
        """Upload what is added until it is finished or given up; what is not stored stays sealed, see ``problem``.

        Raises ``SinkClosed`` if the place takes no more parts, ``SinkRefused`` if the only one must not, and
        ``LedgerError``.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                self._work.clear()
                used = self._places.list_used()
                for place in used:
                    if place.task is None and self._has_work(place):
                        place.task = group.create_task(self._upload(place), name="upload")
                if self._phase is _Phase.FINISHING and all(place.task is None for place in used):
                    break
                await self._work.wait()
        self._phase = _Phase.ENDED
        self._room.set()
        for place in self._places.list_used():
            if not place.waiting and place.dataset_id is not None:
                place.outage = None

    def _has_work(self, place: Place) -> bool:
        attaching = self._phase is _Phase.OPEN and not place.attached and self._places.is_used(place)
        return not place.given_up and (bool(place.waiting) or attaching)

    async def _upload(self, place: Place) -> None:
        """Upload what waits for a place until nothing is left."""
        try:
            while self._has_work(place):
                try:
                    if not place.attached:
                        await self._places.attach(place)
                    await self._store_next(place)
                except SinkError as error:
                    if isinstance(error, SinkClosed) or (isinstance(error, SinkRefused) and place is self._places.only):
                        raise
                    place.attached = False  # it may be another disk, or a new folder, when it works again
                    place.record_failure(error, self._clock.monotonic())
                    place.given_up = self._should_give_up(place)
                    if not place.given_up:
                        await self._pause(place)
                else:
                    self._record_success(place)
        finally:
            place.task = None
            self._work.set()
            self._room.set()

    async def _store_next(self, place: Place) -> None:
        """Store the batch that has waited longest, if there is one. A conflict sets it aside. Raises ``SinkError``."""
        if not place.waiting:
            return
        batch_id, (size_bytes, span) = next(iter(place.waiting.items()))
        try:
            await self._store(batch_id, place)
            span.end(state="stored")
        except PartConflict as error:
            log.error("part_conflict", batch_id=batch_id, reason=str(error))  # noqa: TRY400 - a sentence, no trace
            place.conflict = error
            span.end(state="conflict")
        del place.waiting[batch_id]
        place.sealed_bytes -= size_bytes
        self._sealed_bytes -= size_bytes

    async def _store(self, batch_id: str, place: Place) -> None:
        """Create each part of a batch and mark it as stored. On ``SinkError``, the remaining parts stay sealed."""
        for part in await self._ledger.batches.list_sealed_parts(batch_id):
            try:
                check_sealed(part)
                await place.sink.create(part)
            except PartConflict:
                await self._ledger.batches.mark_conflict(batch_id)
                raise
            await self._ledger.batches.mark_stored(batch_id, dataset=part.dataset, destination=part.destination)

    def _record_success(self, place: Place) -> None:
        place.outage = None
        if self._sealed_bytes < self._max_sealed_bytes:
            self._full_reported = False
        self._room.set()

    def _should_give_up(self, place: Place) -> bool:
        """Return whether only the place delays the end, and has for too long."""
        finishing = self._phase is _Phase.FINISHING
        if finishing and self._stopping.is_set():
            return True
        return (finishing or self.is_full(place)) and self.get_outage_seconds(place) >= self._patience_seconds

    async def _pause(self, place: Place) -> None:
        """Wait before the next attempt. After a stop, wait for the last batch, and make one more attempt then."""
        if self._stopping.is_set() and self._phase is _Phase.OPEN:
            await self._finishing.wait()
            return
        failures = place.outage.failures if place.outage else 1
        seconds = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), MAX_PAUSE_SECONDS)
        await wait_for_event(self._stopping, timeout_seconds=seconds * self._jitter.uniform(0.75, 1.0))
