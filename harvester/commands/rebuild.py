"""Rebuilds a lost ledger from the parts of its datasets, one for each place.

Nothing is written to a dataset: the ledger takes the id that the markers name. If a marker is lost too, the ledger
stores the id of the dataset, and the next start creates the marker. What only the lost ledger contained is gone: pairs
without a capture, rejected pairs, and the order of stored parts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harvester.datasets import list_last_captures
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.schedule import ReadingPlan
from harvester.storage import Sink
from harvester.storage.marker import UNKNOWN_LEDGER, new_dataset_id


async def rebuild(
    ledger: Ledger, places: Sequence[tuple[Sink, Path]], plans: Mapping[str, ReadingPlan], *, temp_directory: Path
) -> int | None:
    """Fill a new ledger with the pairs in the parts of all places; returns how many there are.

    Each place has a folder with its parts. The plan of a pair's workspace says when it is read next, unless it was read
    by ``run``. Returns None if there is nothing to rebuild: all datasets are new, or belong to this ledger already. One
    transaction adds all pairs. Raises ``UsageError`` for a ledger that has pairs, and for places of several ledgers,
    ``StorageError`` if parts or ledger cannot be read.
    """
    ledger_ids = {sink.place: await sink.find_ledger_id() for sink, _ in places}
    lost = [place for place, ledger_id in ledger_ids.items() if await _is_lost(ledger, place, ledger_id)]
    if not lost:
        return None
    if len({ledger_id for ledger_id in ledger_ids.values() if ledger_id}) > 1:
        raise UsageError(f"{' and '.join(ledger_ids)} belong to different ledgers; rebuild each of them by itself")
    if (await ledger.reports.get_books()).accepted:
        raise UsageError(
            f"{ledger.location} already contains pairs, so it cannot be rebuilt; name a new one with --state"
        )
    captures = list_last_captures(*(parts for _, parts in places), temp_directory=temp_directory)
    ledger_id = next((each for each in ledger_ids.values() if each), ledger.ledger_id)
    unmarked = {place: new_dataset_id() for place in lost if ledger_ids[place] == UNKNOWN_LEDGER}
    return await ledger.rebuild(ledger_id, captures, plans, unmarked=unmarked)


async def _is_lost(ledger: Ledger, place: str, ledger_id: str | None) -> bool:
    """Return whether the dataset of a place belongs to another ledger."""
    if ledger_id == UNKNOWN_LEDGER:
        return await ledger.reports.find_dataset(place) is None
    return ledger_id is not None and ledger_id != ledger.ledger_id
