"""A ledger takes over a dataset whose own ledger is lost: its plan is made anew from the parts.

Nothing is written to the dataset: the ledger takes the identity that the marker names. If the marker is lost too, the
ledger remembers the dataset, and the next start creates the marker. What only the lost ledger knew is gone: pairs
without a capture, rejects, and which parts a loader has seen.
"""

from collections.abc import Mapping
from pathlib import Path

from harvester.datasets import last_captures
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.ledger.adoption import restore
from harvester.ledger.books import books
from harvester.ledger.datasets import remembered
from harvester.schedule import ReadingPlan
from harvester.storage import Sink
from harvester.storage.marker import NO_OWNER, new_dataset_id


async def adopt(
    ledger: Ledger, sink: Sink, parts: Path, plans: Mapping[str, ReadingPlan], *, temp_directory: Path
) -> int | None:
    """Take over the dataset of ``sink``, whose parts lie in the folder ``parts``; gives how many pairs came back.

    Those that were not read once are followed on by the plan of their workspace.

    None where there is nothing to adopt: the dataset is new, or this ledger's already. It happens whole or not at all.
    Raises ``UsageError`` for a ledger that is in use, ``StorageError`` where parts or ledger cannot be read.
    """
    owner = await sink.owner()
    known = await ledger.look(remembered, sink.place)
    if owner is None or owner == ledger.ledger_id or (owner == NO_OWNER and known is not None):
        return None
    if (await ledger.look(books)).accepted:
        raise UsageError("only a new ledger can adopt a place, and this one has pairs; give --state a new file")
    captures = last_captures(parts, temp_directory=temp_directory)
    unmarked, now = (sink.place, new_dataset_id()) if owner == NO_OWNER else None, ledger.clock.wall()
    return await ledger.adopt(
        owner or ledger.ledger_id, lambda tx: restore(tx, captures, plans, now=now, unmarked=unmarked)
    )
