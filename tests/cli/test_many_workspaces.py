"""What run and status print about hundreds of workspaces: totals, and those that matter."""

from dataclasses import replace

from harvester.braze.pace_state import PaceState
from harvester.cli.output import book_lines, limit_lines
from harvester.cli.progress import workspace_lines
from harvester.cli.summary import print_summary
from harvester.commands.capture import Summary, WorkspaceProgress
from harvester.health import HOLD_DESCRIPTIONS
from harvester.model import Books, Verdict

PACE = PaceState.before_first_request(100.0)


def progress(*, done: int, of: int, hold_cause: str | None = None) -> WorkspaceProgress:
    """Return the progress of a workspace."""
    pace = replace(PACE, requests=done, hold_cause=hold_cause)
    return WorkspaceProgress(done, of, pace, HOLD_DESCRIPTIONS.__getitem__)


def names(lines: list[str]) -> list[str]:
    """Return the workspaces in quotes, a line each."""
    return [line.split('"')[1] for line in lines if '"' in line]


def test_the_progress_of_500_workspaces_takes_seven_lines():
    """The total comes first, then the workspaces with the worst problems, then those with the most pairs left."""
    workspaces = {f"w{n:03}": progress(done=n % 10, of=9) for n in range(497)}
    workspaces |= {
        "quota": progress(done=1, of=2, hold_cause="rate_limited"),
        "halted": progress(done=0, of=1, hold_cause="halted"),
        "large": progress(done=0, of=100),
    }
    lines = workspace_lines(workspaces)
    done = sum(n % 10 for n in range(497)) + 1
    left = sum(9 - n % 10 for n in range(497)) + 102
    assert lines[0] == f"500 workspaces: {done} pairs done, {left} left, {done} requests, 2 waiting"
    assert names(lines) == ["halted", "quota", "large", "w000", "w010"]
    assert lines[6:] == [f"495 other workspaces: 49 finished, {left - 102 - 18} pairs left"]


def test_the_progress_of_few_workspaces_has_a_line_for_each():
    """The workspaces keep their order, and a single workspace has no line for the total."""
    few = {name: progress(done=1, of=2) for name in ("us", "eu")}
    assert (len(workspace_lines(few)), names(workspace_lines(few))) == (3, ["us", "eu"])
    assert len(workspace_lines({"us": few["us"]})) == 1
    assert workspace_lines({}) == []


def test_the_books_of_500_workspaces_take_eleven_lines():
    """Workspaces that lost pairs come first, and one line counts the others."""
    whole = Books(10, {Verdict.ZERO: 10}, {}, 0, 0)
    books = {f"w{n:03}": whole for n in range(498)}
    books |= {"lost": Books(2, {}, {}, 2, 0), "open": Books(3, {}, {}, 0, 3)}
    lines = [line for line in book_lines(Books.sum(books.values()), books) if line.startswith("workspace")]
    assert (len(lines), names(lines)[:3]) == (11, ["lost", "open", "w000"])
    assert lines[-1] == "workspace  490 others: 4900 pairs, 4900 captured, 0 rejected, 0 expired, 0 pending"


def test_the_summary_of_500_halted_workspaces_is_short(capsys):
    """If all workspaces have the same wrong key, the summary lists ten of them and counts the others."""
    books = {f"w{n:03}": Books(1, {}, {}, 0, 1) for n in range(500)}
    print_summary(Summary(books, halted=dict.fromkeys(books, "status 401")))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) < 40
    assert "halted     490 more workspaces; --json lists all" in lines
    assert limit_lines("halted", ["halted     x"]) == ["halted     x"]
