"""A batch before it is sealed: outcomes for one place, and the parts with their rows."""

import structlog

from harvester.model import DATASET, RAW_DATASET, Batch, Captured, Deferred, Outcome, Part, Reading, ReadingOutcome
from harvester.observability.traces import begin_span
from harvester.storage import Compression, PartWriter

log = structlog.get_logger()


class BatchInProgress:
    """Collects outcomes. It never waits for requests or for the place."""

    def __init__(self, batch: Batch, compression: Compression, destination: str) -> None:
        """Begin without outcomes; ``destination`` is the id of the dataset that the parts belong to."""
        self.batch = batch
        self.destination = destination
        self.outcomes: list[ReadingOutcome] = []
        self.first_outcome_at = 0.0
        """The monotonic time of the first outcome."""
        self.span = begin_span("batch", batch_id=batch.id)
        self._rows = PartWriter(batch, DATASET, compression, destination=destination)
        self._raw = PartWriter(batch, RAW_DATASET, compression, destination=destination)
        self._counted_bytes = 0

    def count_new_bytes(self) -> int:
        """Return how many compressed bytes were added since the last call."""
        before, self._counted_bytes = self._counted_bytes, self._rows.size_bytes + self._raw.size_bytes
        return self._counted_bytes - before

    @property
    def workspaces(self) -> set[str]:
        """The workspaces of its readings."""
        return {each.reading.pair.workspace for each in self.outcomes}

    async def add_outcome(self, reading: Reading, outcome: Outcome, *, now: float) -> None:
        """Add a reading's outcome and rows. It waits only for the compression, after both were added."""
        if not self.outcomes:
            self.first_outcome_at = now
        if not isinstance(outcome, Captured):
            self.outcomes.append(ReadingOutcome(reading, outcome))
            return
        # The rows are in the part now; the outcome needs only the verdict.
        self.outcomes.append(ReadingOutcome(reading, outcome._replace(rows=b"", raw=b"")))
        log.debug(
            "reading_captured",
            workspace=reading.pair.workspace,
            campaign_id=reading.pair.campaign_id,
            send_id=reading.pair.send_id,
            reading=reading.name,
            verdict=outcome.verdict.value,
            rows=outcome.row_count,
            drift=outcome.drift,
            batch_id=self.batch.id,
        )
        if outcome.raw:
            self._raw.append(outcome.raw, 1)
        self._rows.append(outcome.rows, outcome.row_count)
        await self._rows.compress_if_full()
        await self._raw.compress_if_full()

    async def finish(self) -> list[Part]:
        """End the parts; returns those that contain a row."""
        return [part for part in (await self._rows.finish(), await self._raw.finish()) if part is not None]

    def log_sealed(self, parts: list[Part]) -> None:
        """Log that it is sealed."""
        captures = sum(isinstance(each.outcome, Captured) for each in self.outcomes)
        rows = sum(part.row_count for part in parts if part.dataset == DATASET)
        only_deferred = all(isinstance(each.outcome, Deferred) for each in self.outcomes)
        log_sealed = log.debug if only_deferred else log.info  # while requests fail, many such batches are sealed
        log_sealed(
            "batch_sealed",
            batch_id=self.batch.id,
            workspaces=len(self.workspaces),
            readings=len(self.outcomes),
            captures=captures,
            rows=rows,
        )
