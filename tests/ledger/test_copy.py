"""A copy of a ledger in another database: every row, the ids that follow, and what is refused."""

import asyncio
import contextlib

import pytest

from harvester.errors import LedgerError
from harvester.ledger import Ledger, copy, counts
from harvester.model import DATASET, Batch, Captured, Pair, Part, Reading, ReadingOutcome, Rejected, SentPair, Verdict
from harvester.place import LedgerLocation
from harvester.schedule import ReadingPlan
from tests.support.clocks import SettableClock
from tests.support.ledger_file import execute, query

NOW = 1_767_225_600.0
CLOCK = SettableClock(NOW)
TABLES = [each.name for each in copy._TABLES]


def list_rows(location: LedgerLocation) -> dict[str, list[tuple]]:
    """Return the rows of all tables that are copied."""
    return {name: sorted(query(location, f"SELECT * FROM {name}"), key=repr) for name in TABLES}


def show(_text: str) -> None:
    """Ignore the progress."""


async def seal(ledger: Ledger, readings: list[Reading], *, rows: bytes) -> Batch:
    """Seal readings as captured, in a batch with one part."""
    batch, ended = Batch.open(NOW), [ReadingOutcome(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in readings]
    part = Part(DATASET, f"{batch.id}.ndjson", "digest", len(rows), 1, rows, "d")
    assert await ledger.batches.seal([(batch, ended, [part])])
    return batch


@pytest.fixture
async def original(tmp_path):
    """Return the file of a ledger with pairs in every state, a stored part, and one that waits."""
    path = tmp_path / "original.db"
    async with await Ledger.open(path, clock=CLOCK) as ledger:
        await ledger.intake.set_plans({"planned": ReadingPlan((1.0, 13.0))})
        names = ["w"] * 6 + ["planned"] * 3
        pairs = [Pair(each, "c", f"s{number} é\U0001f600") for number, each in enumerate(names)]
        await ledger.intake.enqueue([SentPair(each, NOW + 1 / 3) for each in pairs])
        stored = await seal(ledger, await ledger.batches.claim({"w": 2}), rows=b"rows")
        await ledger.batches.mark_stored(stored.id, dataset=DATASET, destination="d")
        await seal(ledger, await ledger.batches.claim({"w": 1}), rows=bytes(range(256)))
        rejected = [ReadingOutcome(each, Rejected("status_400", "no")) for each in await ledger.batches.claim({"w": 1})]
        assert await ledger.batches.seal([(Batch.open(NOW), rejected, [])])
        await ledger.batches.claim({"w": 1})
    return path


async def test_a_copy_has_every_row_and_continues(original, location, tmp_path, monkeypatch):
    """Rows are the same in every column, also after a copy back, counts are right, and no id is used again."""
    monkeypatch.setattr(copy, "_PAGE_ROWS", 2)
    monkeypatch.setattr(copy, "_PAGE_PARTS", 1)
    async with await Ledger.open(original, clock=CLOCK) as first:
        ledger_id, books = first.ledger_id, await first.reports.get_books()
    rows = await Ledger.copy(original, location, clock=CLOCK, show=show)
    assert list_rows(original) == list_rows(location)
    assert rows == sum(map(len, list_rows(original).values()))
    async with await Ledger.open(location, clock=CLOCK) as second:
        assert second.ledger_id == ledger_id
        assert await second.reports.get_books() == books
        assert await second.reports.find_wrong_counts() == []
        await second.batches.recover()
        await second.intake.enqueue([SentPair(Pair("w", "c", "new"))])
        claimed = await second.batches.claim({"w": 9})
        assert len(claimed) == 3  # the new pair, the pair that a dead owner held, and the one that nobody held
        assert min(each.epoch for each in claimed) > max(
            epoch for (epoch,) in query(original, "SELECT epoch FROM batch")
        )
        assert (await seal(second, claimed, rows=b"more")) is not None
    await Ledger.copy(location, tmp_path / "back.db", clock=CLOCK, show=show)
    assert list_rows(location) == list_rows(tmp_path / "back.db")


async def test_a_ledger_cannot_be_used_after_it_was_copied(original, location, tmp_path):
    """A process that still uses the original is refused. Only another copy of it, or of the copy, can be used."""
    async with await Ledger.open(original, clock=CLOCK) as forgotten:
        await Ledger.copy(original, location, clock=CLOCK, show=show)
        with pytest.raises(LedgerError, match=r"original\.db was copied elsewhere .* name the copy with --state"):
            await forgotten.batches.claim({"w": 1})
    with pytest.raises(LedgerError, match="was copied elsewhere"):
        await Ledger.open(original, clock=CLOCK)
    await Ledger.copy(location, tmp_path / "back.db", clock=CLOCK, show=show)
    with pytest.raises(LedgerError, match="was copied elsewhere"):
        await Ledger.open(location, clock=CLOCK)
    await Ledger.copy(original, tmp_path / "again.db", clock=CLOCK, show=show)
    async with await Ledger.open(tmp_path / "again.db", clock=CLOCK) as again:
        assert (await again.reports.get_books()).balanced


async def test_an_interrupted_copy_cannot_be_used_and_continues(original, tmp_path):
    """Until all rows have been compared, every command refuses it; the same command completes it."""
    to, pages = tmp_path / "copy.db", 0

    def interrupt(_text: str) -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await Ledger.copy(original, to, clock=CLOCK, show=interrupt)
    with pytest.raises(LedgerError, match="this copy of a ledger is not complete; repeat"):
        await Ledger.open(to, clock=CLOCK)
    await Ledger.copy(original, to, clock=CLOCK, show=show)
    assert list_rows(to) == list_rows(original)
    with pytest.raises(LedgerError, match="already contains a ledger"):
        await Ledger.copy(original, to, clock=CLOCK, show=show)


async def test_a_copy_that_another_process_completes_is_not_used_beside_the_original(original, location):
    """Of two copies at the same time, one fails, and the original still cannot be used."""
    other: list[asyncio.Task] = []

    def start_other(text: str) -> None:
        if text.startswith("compared") and not other:
            other.append(asyncio.create_task(Ledger.copy(original, location, clock=CLOCK, show=show)))

    with contextlib.suppress(LedgerError):
        await Ledger.copy(original, location, clock=CLOCK, show=start_other)
    with contextlib.suppress(LedgerError):
        await other[0]
    with pytest.raises(LedgerError, match="was copied elsewhere"):
        await Ledger.open(original, clock=CLOCK)
    async with await Ledger.open(location, clock=CLOCK) as copied:
        assert await copied.reports.find_wrong_counts() == []


async def test_a_ledger_that_changes_while_it_is_copied_is_noticed(original, tmp_path):
    """A row that is changed, or that is deleted after it was copied, ends the command before the copy can be used."""

    async def copy_and(change: str, name: str) -> None:
        def show(text: str) -> None:
            if text.endswith("table pair"):
                execute(original, change)

        with pytest.raises(LedgerError, match=r"the rows of the table pair .* differ"):
            await Ledger.copy(original, tmp_path / name, clock=CLOCK, show=show)
        with pytest.raises(LedgerError, match="is not complete"):
            await Ledger.open(tmp_path / name, clock=CLOCK)
        async with await Ledger.open(original, clock=CLOCK):
            pass  # it is still the ledger

    await copy_and("UPDATE pair SET due_at = due_at + 1 WHERE id = 5", "changed.db")
    await copy_and("DELETE FROM pair WHERE id = 9", "deleted.db")


async def test_a_ledger_in_use_and_a_database_in_use_are_refused(original, tmp_path):
    """A process that holds readings of the ledger would go on with the original."""
    async with await Ledger.open(original, clock=CLOCK) as used:
        await used.batches.claim({"w": 1})
        with pytest.raises(LedgerError, match=r"a process uses the ledger .*original\.db: stop it"):
            await Ledger.copy(original, tmp_path / "copy.db", clock=CLOCK, show=show)
    async with await Ledger.open(tmp_path / "other.db", clock=CLOCK):
        pass
    with pytest.raises(LedgerError, match=r"other\.db already contains a ledger; name a new file, or an empty"):
        await Ledger.copy(original, tmp_path / "other.db", clock=CLOCK, show=show)


async def test_an_estimate_needs_only_the_pairs(original, location, tmp_path):
    """The copy for an estimate is made while a process uses the ledger, and has the same books."""
    await Ledger.copy(original, location, clock=CLOCK, show=show)
    async with await Ledger.open(location, clock=CLOCK) as used:
        assert await used.batches.claim({"w": 1})
        await Ledger.copy_pairs(location, tmp_path / "draft.db", clock=CLOCK)
        async with await Ledger.open(tmp_path / "draft.db", clock=CLOCK) as draft:
            assert await draft.reports.get_books() == await used.reports.get_books()
            assert await draft.reports.count_pending() == await used.reports.count_pending()


async def test_reading_every_pair_has_no_time_limit(database_url):
    """A server ends other statements after 30 seconds, but a ledger may have more pairs than it counts in that time."""

    def get_limit(tx, work):
        work(tx)
        return tx.connection.exec_driver_sql("SHOW statement_timeout").scalar_one()

    async with await Ledger.open(database_url, clock=CLOCK) as ledger:
        assert await ledger._database.report(get_limit, lambda _: None) == "30s"
        assert await ledger._database.report(get_limit, counts.find_wrong_counts) == "0"
