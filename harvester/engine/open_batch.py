"""One batch before it is sealed: its parts in the making, and what became of its readings so far.

It knows neither who asks nor where parts go, and never waits for either.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from harvester.model import (
    DATASET,
    RAW_DATASET,
    Batch,
    Captured,
    Deferred,
    Outcome,
    Part,
    Reading,
    Rejected,
    Returned,
    Settlement,
)
from harvester.observability.traces import begin_span
from harvester.storage import Compression, PartWriter

log = structlog.get_logger()


@dataclass(slots=True)
class Tally:
    """What this process has done so far, for progress and summary."""

    outcomes: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    rows: int = 0
    part_bytes: int = 0


class OpenBatch:
    """Takes back the readings of one claim with their outcomes, all of which are sealed together."""

    def __init__(
        self, workspace: str, readings: Sequence[Reading], *, now: float, clock_offset: float, destination: str,
        compression: Compression,
    ) -> None:  # fmt: skip
        """Begin with no outcome; ``clock_offset`` is the offset of the clock when the readings were claimed.

        ``destination`` is the id of the dataset that takes the parts.
        """
        self.batch = Batch.open(now)
        self.workspace = workspace
        self.readings = readings
        self.clock_offset = clock_offset
        self.settlements: list[Settlement] = []
        self.span = begin_span("batch", workspace=workspace, batch_id=self.batch.id, readings=len(readings))
        self._rows = PartWriter(self.batch, DATASET, compression, destination)
        self._raw = PartWriter(self.batch, RAW_DATASET, compression, destination)

    @property
    def complete(self) -> bool:
        """Whether every reading is back."""
        return len(self.settlements) == len(self.readings)

    @property
    def captured(self) -> int:
        """How many readings brought an answer."""
        return sum(isinstance(each.outcome, Captured) for each in self.settlements)

    async def take_back(self, reading: Reading, outcome: Outcome) -> None:
        """Note what became of a reading, and add its rows to the part."""
        if isinstance(outcome, Captured):
            await self._rows.add(outcome.rows, outcome.row_count)
            if outcome.raw:
                await self._raw.add(outcome.raw, 1)
            # The rows are in the part now; the settlement needs the verdict alone.
            outcome = Captured(outcome.verdict, outcome.captured_at, b"", outcome.row_count, outcome.drift)
            log.debug("reading_captured", workspace=self.workspace, campaign_id=reading.pair.campaign_id,
                      send_id=reading.pair.send_id, reading=reading.name, verdict=outcome.verdict.value,
                      rows=outcome.row_count, drift=outcome.drift, batch_id=self.batch.id)  # fmt: skip
        self.settlements.append(Settlement(reading, outcome))

    async def parts(self) -> list[Part]:
        """End the parts and give those that hold a row."""
        return [part for part in (await self._rows.finish(), await self._raw.finish()) if part is not None]

    def count_into(self, tally: Tally, parts: list[Part]) -> None:
        """Add what came of it to what this process has done."""
        for settlement in self.settlements:
            match settlement.outcome:
                case Captured() as outcome:
                    tally.outcomes[outcome.verdict.value] += 1
                case Rejected():
                    tally.outcomes["rejected"] += 1
                case _:
                    pass
        rows = sum(part.row_count for part in parts if part.dataset == DATASET)
        tally.parts += len(parts)
        tally.rows += rows
        tally.part_bytes += sum(part.size_bytes for part in parts)
        nothing = all(isinstance(each.outcome, Deferred | Returned) for each in self.settlements)
        log_sealed = log.debug if nothing else log.info  # without answers, many empty batches are sealed
        log_sealed("batch_sealed", batch_id=self.batch.id, workspace=self.workspace,
                 readings=len(self.settlements), captures=self.captured, rows=rows)  # fmt: skip
