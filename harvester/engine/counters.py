"""What this process has captured and written since its start."""

from collections import Counter
from collections.abc import Sequence

from harvester.model import DATASET, Captured, Part, Rejected, Settlement


class Counters:
    """Counts sealed batches: readings of each workspace by verdict or as rejected, and parts, rows and bytes."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.outcomes: dict[str, Counter[str]] = {}
        self.parts = 0
        self.rows = 0
        self.part_bytes = 0

    def add(self, settlements: Sequence[Settlement], parts: Sequence[Part]) -> None:
        """Add a sealed batch."""
        for reading, outcome in settlements:
            of_workspace = self.outcomes.setdefault(reading.pair.workspace, Counter())
            if isinstance(outcome, Captured):
                of_workspace[outcome.verdict.value] += 1
            elif isinstance(outcome, Rejected):
                of_workspace["rejected"] += 1
        self.parts += len(parts)
        self.rows += sum(part.row_count for part in parts if part.dataset == DATASET)
        self.part_bytes += sum(part.size_bytes for part in parts)

    def count_done(self, workspace: str) -> int:
        """Return how many readings of a workspace were captured or rejected."""
        return self.outcomes[workspace].total() if workspace in self.outcomes else 0
