"""The commands status and parts."""

import asyncio
import json
import os
import sqlite3
from contextlib import closing

import pytest

from harvester.cli.status import parts, status
from harvester.clock import SystemClock
from harvester.errors import ExitCode, UsageError
from harvester.ledger import Ledger
from harvester.model import DATASET, DAY_SECONDS, Batch, Pair, Part, SentPair
from harvester.schedule import ReadingPlan
from tests.support.clocks import SettableClock


def test_books_that_do_not_balance_are_marked_and_end_with_exit_code_1(tmp_path, capsys):
    """A script notices them, even if the counts of two workspaces make up for each other."""
    path = tmp_path / "ledger.db"

    async def fill() -> None:
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            await ledger.intake.enqueue([SentPair(Pair(workspace, "c", "s")) for workspace in ("eu", "us")])

    asyncio.run(fill())
    status.main(["--state", str(path)], standalone_mode=False)
    with closing(sqlite3.connect(path)) as connection, connection:
        change = "UPDATE pair_count SET pairs = pairs + ? WHERE workspace = ? AND state = 'accepted'"
        connection.executemany(change, [(1, "eu"), (-1, "us")])
    with pytest.raises(SystemExit) as ended:
        status.main(["--state", str(path)], standalone_mode=False)
    assert ended.value.code == ExitCode.BUG
    assert "NOT BALANCED: report this bug" in capsys.readouterr().out


def test_status_shows_which_replica_serves_how_many_workspaces(tmp_path, capsys):
    """Each living replica is listed by its name, which begins with that of its machine."""
    path = tmp_path / "ledger.db"

    async def show() -> set[str]:
        async with (
            await Ledger.open(path, clock=SystemClock()) as one,
            await Ledger.open(path, clock=SystemClock()) as other,
        ):
            await one.intake.set_plans(dict.fromkeys(("eu", "us"), ReadingPlan((1.0,))))
            for each in (one, other):
                await each.batches.join_replicas()
            await asyncio.to_thread(status.main, ["--state", str(path), "--json"], standalone_mode=False)
            await asyncio.to_thread(status.main, ["--state", str(path)], standalone_mode=False)
            return {one.batches.owner, other.batches.owner}

    owners = asyncio.run(show())
    shown = capsys.readouterr().out
    replicas = json.JSONDecoder().raw_decode(shown)[0]["replicas"]
    assert (set(replicas), sorted(each for names in replicas.values() for each in names)) == (owners, ["eu", "us"])
    for name, workspaces in replicas.items():
        assert f"assigned   {name}: {len(workspaces)} workspace" in shown
        assert all(f'"{each}"' in shown for each in workspaces)
        assert name.startswith(os.uname().nodename[:20])


@pytest.fixture
def pruned_ledger(tmp_path):
    """A ledger that lists the last of three parts; the others were pruned."""
    path, clock = tmp_path / "ledger.db", SettableClock(1_795_527_667.0)

    async def fill() -> None:
        async with await Ledger.open(path, clock=clock) as ledger:
            ledger.clock.observe(clock.now, sent=clock.now, received=clock.now)
            await ledger.upkeep.save_dataset("./harvest", "d")
            for _ in range(3):
                batch = Batch.open(clock.now)
                await ledger.batches.seal([(batch, [], [Part(DATASET, batch.id, "0", 7, 1, b"x", "d")])])
                await ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="d")
                clock.now += 100 * DAY_SECONDS
            await ledger.upkeep.prune(keep_days=90)

    asyncio.run(fill())
    return path


def test_parts_reports_which_parts_it_no_longer_lists(pruned_ledger, capsys):
    """Standard output contains only the parts that the ledger lists; the report goes to standard error."""
    parts.main(["--state", str(pruned_ledger)], standalone_mode=False)
    out, err = capsys.readouterr()
    assert [json.loads(line)["order"] for line in out.splitlines()] == [3]
    assert "no longer lists the parts up to order 2, stored until 2027-03-04T" in err
    assert "still in ./harvest: load all parts there, then continue with --since 2" in err


def test_a_bookmark_before_the_pruned_parts_is_refused(pruned_ledger, capsys):
    """A loader that missed parts gets an error instead of an incomplete list."""
    for since in ("0", "1"):
        with pytest.raises(UsageError, match=f"--since {since}: .*load all parts there, then continue with --since 2"):
            parts.main(["--state", str(pruned_ledger), "--since", since], standalone_mode=False)
        assert capsys.readouterr().out == ""
    parts.main(["--state", str(pruned_ledger), "--since", "2"], standalone_mode=False)
    out, err = capsys.readouterr()
    assert (json.loads(out)["order"], err) == (3, "")


def test_a_bookmark_of_a_ledger_that_was_rebuilt_is_refused(pruned_ledger):
    """The orders of a rebuilt or restored ledger begin again; its new parts would be skipped up to the bookmark."""
    parts.main(["--state", str(pruned_ledger), "--since", "3"], standalone_mode=False)
    for since in ("4", "99999999999999999999"):
        with pytest.raises(UsageError, match=f"--since {since}: .*was rebuilt.* all parts again, .* with --since 3"):
            parts.main(["--state", str(pruned_ledger), "--since", since], standalone_mode=False)
