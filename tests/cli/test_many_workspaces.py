"""What run and status print about hundreds of workspaces: totals, and those that matter."""

from harvester.cli.output import book_lines, limit_lines
from harvester.cli.summary import print_summary
from harvester.commands.capture import Summary
from harvester.model import Books, Verdict


def names(lines: list[str]) -> list[str]:
    """Return the workspaces in quotes, a line each."""
    return [line.split('"')[1] for line in lines if '"' in line]


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
