"""The commands requeue and remove with one pair instead of an outcome or lists."""

import asyncio

import click
import pytest

from harvester.cli import main
from harvester.cli.pairs import remove, requeue
from harvester.clock import SystemClock
from harvester.errors import ExitCode, UsageError
from harvester.ledger import Ledger
from harvester.model import Batch, Pair, ReadingOutcome, Rejected, SentPair

STATES = {"eu c s": "rejected", "eu c other": "rejected", "us c s": "rejected", "us c alone": "pending"}


@pytest.fixture
def path(tmp_path):
    """Create a ledger with rejected pairs of two workspaces, and a pending one."""

    async def fill() -> None:
        async with await Ledger.open(tmp_path / "ledger.db", clock=SystemClock()) as ledger:
            for name, state in STATES.items():
                await ledger.intake.enqueue([SentPair(Pair(*name.split()))])
                if state == "rejected":
                    (reading,) = await ledger.batches.claim({name.split()[0]: 1})
                    refused = [ReadingOutcome(reading, Rejected("status_404", "unknown"))]
                    assert await ledger.batches.seal([(Batch.open(1.0), refused, [])])

    asyncio.run(fill())
    return tmp_path / "ledger.db"


def states(path) -> dict[str, str]:
    """Return the state of each pair in the ledger."""

    async def find() -> dict[str, str]:
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            found = await ledger.reports.find([Pair(*name.split()) for name in STATES])
        return {f"{pair.workspace} {pair.campaign_id} {pair.send_id}": state for pair, state in found.items()}

    return asyncio.run(find())


def run(command, path, *arguments: str) -> None:
    """Run a command in this process."""
    command.main([*arguments, "--state", str(path)], standalone_mode=False)


def test_one_pair_is_requeued_and_no_other(path, capsys):
    """A pair in one workspace needs no --workspace."""
    run(requeue, path, "--pair", "c", "other")
    assert capsys.readouterr().out.startswith("1 pair is pending again")
    assert states(path) == STATES | {"eu c other": "pending"}


def test_one_pair_is_removed_and_no_other(path, capsys):
    """``--workspace`` names the pair of one workspace."""
    with pytest.raises(UsageError, match=r'several workspaces have .* --workspace: "eu", "us"'):
        run(remove, path, "--pair", "c", "s")
    run(remove, path, "--pair", "c", "s", "--workspace", "us")
    assert capsys.readouterr().out == "removed 1 of 1 pair\n"
    assert states(path) == {name: state for name, state in STATES.items() if name != "us c s"}


def test_a_pair_that_is_being_read_is_not_removed(path, capsys):
    """The exit code is 3, so that a script notices that the pair is still in the ledger."""

    async def remove_leased() -> None:
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            assert len(await ledger.batches.claim({"us": 10})) == 1
            with pytest.raises(SystemExit) as ended:
                await asyncio.to_thread(run, remove, path, "--pair", "c", "alone")
            assert ended.value.code == ExitCode.PARTIAL

    asyncio.run(remove_leased())
    assert "it is being read now" in capsys.readouterr().out


def test_an_outcome_can_be_requeued_in_one_workspace(path):
    """Pairs of other workspaces stay rejected."""
    run(requeue, path, "--outcome", "rejected", "--workspace", "us")
    assert states(path) == STATES | {"us c s": "pending"}


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (requeue, (), "either --outcome, or one --pair"),
        (requeue, ("--pair", "c", "s", "--outcome", "expired"), "either --outcome, or one --pair"),
        (requeue, ("--pair", "c", "alone"), "the pair is pending; only a rejected or expired pair"),
        (requeue, ("--pair", "c", "nope"), "does not contain the pair 'c' 'nope'; check the ids"),
        (remove, (), "either lists of pairs, or one --pair"),
        (remove, ("list.csv", "--pair", "c", "s"), "either lists of pairs, or one --pair"),
        (remove, ("--pair", "c", "nope", "--workspace", "us"), 'in workspace "us"; check the ids'),
    ],
)
def test_a_pair_that_cannot_be_changed_is_an_error(path, command, arguments, message):
    """The message gives the reason, and nothing changes."""
    with pytest.raises(UsageError, match=message):
        run(command, path, *arguments)
    assert states(path) == STATES


@pytest.mark.parametrize(
    "arguments",
    [("show", "\udcff"), ("requeue", "--pair", "c", "s\udcff"), ("remove", "list.csv", "--workspace", "\udcff-eu")],
)
def test_an_argument_that_is_not_utf8_is_a_usage_error(arguments):
    """The error of every command shows the invalid bytes."""
    with pytest.raises(click.UsageError, match=r"the argument '.*\\xff.*' is not valid UTF-8"):
        main.make_context("harvester", [*arguments])
    assert main.make_context("harvester", ["show", "é"])


async def test_blanks_around_ids_are_ignored(harvester, tmp_path):
    """Ids are copied from spreadsheets and terminals, as in lists."""
    (tmp_path / "sends.csv").write_text("campaign_id,send_id\n c , s \n")
    await harvester.run("enqueue", "sends.csv")
    assert (await harvester.run("show", " s "))[0] == 0
    code, out, _ = await harvester.run("remove", "--pair", "c ", " s")
    assert (code, out) == (0, "removed 1 of 1 pair\n")


async def test_pairs_are_enqueued_if_bad_lines_cannot_be_written(harvester, tmp_path):
    """The command shows the first bad lines, and says which file cannot be written and what to do."""
    (tmp_path / "sends.csv").write_text("campaign_id,send_id\nc,\nc,one\nc,\nc,two\n")
    rejects = tmp_path / "rejects.ndjson"
    rejects.mkdir()
    code, out, err = await harvester.run("enqueue", "sends.csv", "--state", "ledger.db")
    assert (code, out.splitlines()[0]) == (3, "2 pairs are new, 0 were known, 2 lines unreadable"), err
    assert "sends.csv:2: send_id is empty" in out
    assert "rejects.ndjson does not have all bad lines, because it cannot be written: Is a directory." in out
    rejects.rmdir()
    assert (
        "2 were known, 2 lines unreadable, see rejects.ndjson"
        in (await harvester.run("enqueue", "sends.csv", "--state", "ledger.db"))[1]
    )
