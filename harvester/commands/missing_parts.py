"""Compares the stored parts of a ledger with those in its place. Only reads."""

from dataclasses import dataclass

from harvester.formatting import quantity
from harvester.ledger import Ledger
from harvester.storage import Sink

NEWEST_PARTS = 1000
"""How many parts are compared: those that were stored last."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many parts were compared, and the names of the missing ones, the earliest stored first.

    ``pruned`` is the number of older parts that were not compared, because the ledger no longer lists them.
    """

    compared: int
    missing: tuple[str, ...]
    pruned: int = 0

    def __str__(self) -> str:
        """Return what was compared, and for missing parts what to do."""
        bound = ""
        if self.compared == NEWEST_PARTS:
            bound = f" (only the newest {NEWEST_PARTS} are compared)"
        elif self.pruned:
            bound = f" ({quantity(self.pruned, 'older part')} not compared: the ledger no longer lists them)"
        if not self.missing:
            return f"no stored part of this ledger is missing: {self.compared} compared{bound}"
        return (
            f"{len(self.missing)} of {self.compared} stored parts are missing{bound}, the first is {self.missing[0]}; "
            "mount their disk, or restore them from a copy; to capture sends of the last 14 days again, use harvester "
            "remove, then harvester enqueue and harvester run"
        )


async def compare_parts(ledger: Ledger, sink: Sink, dataset_id: str) -> Comparison:
    """Compare the newest parts of a dataset with its place, folder by folder. Raises ``SinkError``."""
    names = await ledger.reports.list_newest_parts(dataset_id, limit=NEWEST_PARTS)
    there: set[str] = set()
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        there |= await sink.list_parts(folder)
    missing = tuple(name for name in reversed(names) if name not in there)
    pruned = await ledger.reports.find_pruned_parts(dataset_id)
    return Comparison(len(names), missing, 0 if pruned is None else pruned.count)
