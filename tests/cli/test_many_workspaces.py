"""What run and status print about hundreds of workspaces: totals, and those that matter."""

from harvester.books import Books
from harvester.cli.books import book_lines
from harvester.cli.output import limit_lines
from harvester.cli.summary import print_summary
from harvester.commands.summary import Summary
from harvester.model import Verdict


def test_the_books_of_500_workspaces_are_a_table_of_eleven():
    """Workspaces that lost pairs come first, then those with pairs at risk, and one row counts the others."""
    whole = Books(10, {Verdict.ZERO: 10}, {}, 0, 0)
    books = {f"w{n:03}": whole for n in range(497)}
    books |= {"lost": Books(2, {}, {}, 2, 0), "open": Books(3, {}, {}, 0, 3), "risk": Books(1, {}, {}, 0, 1)}
    lines = book_lines(Books.sum(books.values()), books, at_risk={"risk": 1}, width=80)[5:]
    assert lines[:5] == [
        "workspace   accepted  captured  rejected  expired  pending  at risk",
        "lost               2         0         0        2        0        0",
        "risk               1         0         0        0        1        1",
        "open               3         0         0        0        3        0",
        "w000              10        10         0        0        0        0",
    ]
    assert (len(lines), lines[-1].split()) == (12, ["490", "others", "4900", "4900", "0", "0", "0", "0"])
    narrow = book_lines(Books.sum(books.values()), books, at_risk={"risk": 1}, width=60)[5:]
    assert narrow[0] == "workspace   captured  rejected  expired  pending  at risk"


def test_the_summary_of_500_halted_workspaces_is_short(capsys):
    """If all workspaces have the same wrong key, the summary lists ten of them and counts the others."""
    books = {f"w{n:03}": Books(1, {}, {}, 0, 1) for n in range(500)}
    print_summary(Summary(books, halted=dict.fromkeys(books, "status 401")))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) < 40
    assert "halted     490 more workspaces; --json lists all" in lines
    assert limit_lines("halted", ["halted     x"]) == ["halted     x"]
