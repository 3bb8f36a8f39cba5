"""The comparison of a ledger's stored parts with those in its place."""

from harvester.commands.missing_parts import compare_parts
from harvester.ledger import Ledger
from harvester.model import DATASET, DAY_SECONDS, Batch, Part
from harvester.storage import FolderSink
from tests.support.clocks import SettableClock


async def test_pruned_parts_are_counted_but_not_reported_as_missing(tmp_path):
    """A lost part is reported if the ledger lists it. Older parts are only counted, lost or not."""
    clock, folder = SettableClock(1_795_527_667.0), tmp_path / DATASET / "captured_date=2026-11-20"
    folder.mkdir(parents=True)
    async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        ledger.clock.observe(clock.now, sent=clock.now, received=clock.now)
        for number in range(3):
            batch, name = Batch.open(clock.now), f"{DATASET}/{folder.name}/{number}.ndjson.zst"
            await ledger.batches.seal([(batch, [], [Part(DATASET, name, "0", 7, 1, b"x", "d")])])
            await ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="d")
            clock.now += 100 * DAY_SECONDS
        await ledger.upkeep.prune(keep_days=90)
        (folder / "2.ndjson.zst").touch()
        older = "(2 older parts not compared: the ledger no longer lists them)"
        found = await compare_parts(ledger, FolderSink(tmp_path), "d")
        assert str(found) == f"no stored part of this ledger is missing: 1 compared {older}"
        (folder / "2.ndjson.zst").unlink()
        found = await compare_parts(ledger, FolderSink(tmp_path), "d")
        assert str(found).startswith(f"1 of 1 stored parts are missing {older}, the first is {name}; mount")
