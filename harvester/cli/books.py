"""The books of a ledger as text and as JSON: how many pairs are captured, rejected, expired and pending."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harvester.books import Books
from harvester.braze.refusals import WRONG_IDS_HINT
from harvester.cli.layout import Field, align_fields, join_fields, shorten
from harvester.cli.output import MAX_WORKSPACES, format_time, limit_lines, plural

_COLUMNS = ("workspace", "accepted", "captured", "rejected", "expired", "pending", "at risk")
_LONGEST_NAME = 24
_ANY_WIDTH = 1000


def books_as_dict(balance: Books) -> dict[str, Any]:
    """Return the books as JSON."""
    return balance.as_dict(format_time) | {"waiting_for_next_reading": balance.pending - balance.never_read}


def books_by_workspace(balances: Mapping[str, Books]) -> dict[str, Any]:
    """Return the books of each workspace as JSON."""
    return {name: books_as_dict(balance) for name, balance in sorted(balances.items())}


def book_lines(
    balance: Books, balances: Mapping[str, Books], *, at_risk: Mapping[str, int] | None = None, width: int | None = None
) -> list[str]:
    """Return the books as lines of text, and a table of the workspaces if there are several.

    Of more than ``MAX_WORKSPACES``, the table has only those with most lost pairs, then with most pairs ``at_risk``,
    then with most pending ones. A narrow ``width`` leaves out the column of the accepted pairs.
    """
    captured = ", ".join(f"{count} {verdict}" for verdict, count in sorted(balance.captured.items())) or "0"
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(balance.rejected.items())) or "0"
    balanced = all(each.balanced for each in (balance, *balances.values()))
    unbalanced = "" if balanced else "   NOT BALANCED: report this bug"
    return [
        f"accepted   {plural(balance.accepted, 'pair')}{unbalanced}",
        f"captured   {captured}",
        f"rejected   {rejected}",
        f"expired    {balance.expired}",
        f"pending    {balance.pending}{_pending(balance)}",
        *(_list_workspaces(balances, at_risk, width or _ANY_WIDTH) if len(balances) > 1 else []),
    ]


def _list_workspaces(balances: Mapping[str, Books], at_risk: Mapping[str, int] | None, width: int) -> list[str]:
    risks = at_risk or {}
    ranked = sorted(balances.items())
    if len(ranked) > MAX_WORKSPACES:
        ranked.sort(key=lambda item: (-_count_lost(item[1]), -risks.get(item[0], 0), -item[1].pending))
    rows = [(shorten(name, _LONGEST_NAME), books, risks.get(name, 0)) for name, books in ranked[:MAX_WORKSPACES]]
    if rest := ranked[MAX_WORKSPACES:]:
        others = Books.sum(books for _, books in rest)
        rows.append((plural(len(rest), "other"), others, sum(risks.get(name, 0) for name, _ in rest)))
    cells = [
        (name, books.accepted, sum(books.captured.values()), sum(books.rejected.values()), books.expired,
         books.pending, risk)
        for name, books, risk in rows
    ]  # fmt: skip
    columns = len(_COLUMNS) if at_risk is not None else len(_COLUMNS) - 1
    fields = [
        [Field(str(cell), int(number == 1)) for number, cell in enumerate(row[:columns])] for row in (_COLUMNS, *cells)
    ]
    return ["".join(span.text for span in join_fields(row)) for row in align_fields(fields, width)]


def _count_lost(books: Books) -> int:
    return books.expired + sum(books.rejected.values())


def _pending(balance: Books) -> str:
    """Describe how many pending pairs were never read, and how many wait for their next reading."""
    waiting = balance.pending - balance.never_read
    parts = [f"{balance.never_read} never read"] if balance.never_read else []
    if waiting:
        at = balance.next_reading_at
        when = f", the next at {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if at is not None else ""
        parts.append(f"{waiting} read before and waiting for {'its' if waiting == 1 else 'their'} next reading{when}")
    return ": " + ", ".join(parts) if parts else ""


def refused_lines(balances: Mapping[str, Books]) -> list[str]:
    """Return a hint for each workspace with refused pairs and no captured one."""
    lines = [
        f'note       workspace "{name}": Braze refused every requested pair '
        f"({plural(sum(each.rejected.values()), 'pair')}); "
        f"{WRONG_IDS_HINT}"
        for name, each in sorted(balances.items())
        if each.rejected and not any(each.captured.values()) and each.pending == each.never_read
    ]
    return limit_lines("note", lines)
