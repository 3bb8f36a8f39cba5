"""Rebuilds a lost ledger from the parts of its dataset.

Nothing is written to the dataset: the ledger takes the id that the marker names. If the marker is lost too, the ledger
stores the id of the dataset, and the next start creates the marker. What only the lost ledger contained is gone: pairs
without a capture, rejected pairs, and the order of stored parts.
"""

from collections.abc import Mapping
from pathlib import Path

from harvester.datasets import list_last_captures
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.schedule import ReadingPlan
from harvester.storage import Sink
from harvester.storage.marker import NO_OWNER, new_dataset_id


async def rebuild(
    ledger: Ledger, sink: Sink, parts: Path, plans: Mapping[str, ReadingPlan], *, temp_directory: Path
) -> int | None:
    """Fill a new ledger with the pairs in ``parts``, a folder with the parts of ``sink``; returns how many there are.

    The plan of a pair's workspace says when it is read next, unless it was read by ``run``. Returns None if there is
    nothing to rebuild: the dataset is new, or belongs to this ledger already. One transaction adds all pairs. Raises
    ``UsageError`` for a ledger that has pairs, ``StorageError`` if parts or ledger cannot be read.
    """
    owner = await sink.find_owner()
    known = await ledger.reports.find_dataset(sink.place)
    if owner is None or owner == ledger.ledger_id or (owner == NO_OWNER and known is not None):
        return None
    if (await ledger.reports.get_books()).accepted:
        raise UsageError(f"{ledger.path} already contains pairs, so it cannot be rebuilt; name a new file with --state")
    captures = list_last_captures(parts, temp_directory=temp_directory)
    unmarked = (sink.place, new_dataset_id()) if owner == NO_OWNER else None
    return await ledger.rebuild(owner or ledger.ledger_id, captures, plans, unmarked=unmarked)
