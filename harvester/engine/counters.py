"""What this process has captured and written since its start."""

from collections import Counter
from collections.abc import Sequence

from harvester.histogram import Histogram
from harvester.model import DATASET, Captured, Part, ReadingOutcome, Rejected

LATENESS_BOUNDS = (60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0)


class Counters:
    """Counts sealed batches: readings of each workspace by verdict or as rejected, and parts, rows and bytes.

    ``captures`` counts captures by verdict and by name of the reading, and ``lateness`` has the seconds from when each
    was due until it was captured.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self.outcomes: dict[str, Counter[str]] = {}
        self.captures: Counter[tuple[str, str]] = Counter()
        self.lateness = Histogram(LATENESS_BOUNDS)
        self.parts = 0
        self.rows = 0
        self.part_bytes = 0

    def add(self, outcomes: Sequence[ReadingOutcome], parts: Sequence[Part]) -> None:
        """Add a sealed batch."""
        for reading, outcome in outcomes:
            of_workspace = self.outcomes.setdefault(reading.pair.workspace, Counter())
            if isinstance(outcome, Captured):
                of_workspace[outcome.verdict.value] += 1
                self.captures[outcome.verdict.value, reading.name] += 1
                if reading.due_at:
                    self.lateness.observe(max(0.0, outcome.captured_at - reading.due_at))
            elif isinstance(outcome, Rejected):
                of_workspace["rejected"] += 1
        self.parts += len(parts)
        self.rows += sum(part.row_count for part in parts if part.dataset == DATASET)
        self.part_bytes += sum(part.size_bytes for part in parts)

    def count_done(self, workspace: str) -> int:
        """Return how many readings of a workspace were captured or rejected."""
        return self.outcomes[workspace].total() if workspace in self.outcomes else 0
