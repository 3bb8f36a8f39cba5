"""Sends of one workspace, and owners that claim, seal and store them without requests."""

from harvester.ledger import Ledger
from harvester.model import DATASET, Batch, Captured, Pair, Part, Reading, ReadingOutcome, SentPair, Verdict

NOW = 1_795_527_667.0


def list_sends(count: int, *, sent_at: float | None = NOW - 3600, first: int = 0) -> list[SentPair]:
    """Return sends of one workspace."""
    return [SentPair(Pair("w", "c", f"s{number}"), sent_at) for number in range(first, first + count)]


def capture(readings: list[Reading]) -> tuple[Batch, list[ReadingOutcome], list[Part]]:
    """Return a batch in which all readings are captured, with one part."""
    batch = Batch.open(NOW)
    outcomes = [ReadingOutcome(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in readings]
    return batch, outcomes, [Part(DATASET, f"{batch.id}.ndjson", "digest", 4, len(readings), b"rows", "d")]


async def run_cycles(owner: Ledger, *, at_once: int) -> list[Pair]:
    """Claim, seal and store until a claim returns nothing; returns the captured pairs."""
    captured = []
    while readings := await owner.batches.claim({"w": at_once}):
        batch, outcomes, parts = capture(readings)
        assert await owner.batches.seal([(batch, outcomes, parts)])
        assert await owner.batches.mark_stored(batch.id, dataset=DATASET, destination="d")
        captured += [each.pair for each in readings]
    return captured
