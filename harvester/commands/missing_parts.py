"""Compares the parts that a ledger has as stored with those that lie in its place. Only reads."""

from dataclasses import dataclass

from harvester.ledger import Ledger
from harvester.storage import Sink

NEWEST_PARTS = 1000
"""How many parts are compared: those that were stored last."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many parts were looked for, and the names of those that are missing, the earliest stored first."""

    compared: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """Say what was compared, and for missing parts what to do."""
        bound = f" (only the newest {NEWEST_PARTS} are compared)" if self.compared == NEWEST_PARTS else ""
        if not self.missing:
            return f"all {self.compared} stored parts of this ledger are there{bound}"
        return (
            f"{len(self.missing)} of {self.compared} stored parts are missing{bound}, the first is {self.missing[0]}; "
            "restore them from a copy; for sends that Braze can still answer, use harvester remove, then "
            "harvester enqueue and harvester run to capture them again"
        )


async def compare_parts(ledger: Ledger, sink: Sink, dataset_id: str) -> Comparison:
    """Look for the newest parts of a dataset in its place, folder by folder. Raises ``SinkError``."""
    names = await ledger.reports.list_newest_parts(dataset_id, limit=NEWEST_PARTS)
    there: set[str] = set()
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        there |= await sink.list_parts(folder)
    return Comparison(len(names), tuple(name for name in reversed(names) if name not in there))
