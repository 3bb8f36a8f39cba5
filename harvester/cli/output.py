"""Output that several commands share: JSON, counts, books, and notes on lists."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from harvester.braze.refusals import WRONG_IDS_HINT
from harvester.clock import LARGE_DIFFERENCE_SECONDS, format_difference
from harvester.model import Books
from harvester.text import printable

if TYPE_CHECKING:
    from harvester.ledger import ClockDifference
    from harvester.sources import Input, RejectsFile

MAX_WORKSPACES = 10
"""How many workspaces are listed in text; JSON lists all."""


DEFAULT_WIDTH = 80
"""The width of a terminal that does not know its own."""


def get_width(stream: TextIO) -> int | None:
    """Return the width of a terminal, in characters; None for a pipe or a file."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except OSError:
        return DEFAULT_WIDTH


def use_color(stream: TextIO) -> bool:
    """Return whether a stream is a terminal, and the user has not set ``NO_COLOR``."""
    context = click.get_current_context(silent=True)
    return stream.isatty() and (context is None or context.color is not False)


def print_json(value: dict[str, Any], *, indent: bool = True, to_stderr: bool = False) -> None:
    """Print JSON to stdout, or to stderr."""
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode(), err=to_stderr)


def plural(count: int, one: str, more: str = "", *, number: Callable[[int], str] = str) -> str:
    """Return a count, formatted by ``number``, and its noun: ``one``, or ``more`` (by default ``one`` and an s)."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def quote(names: Iterable[str]) -> str:
    """Return the names in quotes, sorted and separated by commas."""
    return ", ".join(f'"{name}"' for name in sorted(names))


def format_time(seconds: float | None) -> str | None:
    """Return a time in the format of the rows, to the millisecond; None for an unknown one."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_line(known: "ClockDifference | None") -> str:
    """Return the line about this machine's clock, for commands that make no request."""
    if known is None:
        return "clock      not compared with Braze's yet; ages and deadlines follow this machine's clock"
    measured_at = format_time(known.measured_at)
    if known.outdated:
        return (
            f"clock      last compared with Braze's at {measured_at}, but this machine's clock was set since; ages and "
            "deadlines follow it until the next request to Braze"
        )
    if abs(known.seconds) <= LARGE_DIFFERENCE_SECONDS:
        return f"clock      correct since {measured_at}, by Braze's clock"
    difference = format_difference(known.seconds)
    return f"clock      {difference} since {measured_at}; harvester uses Braze's time. Correct the clock."


def books_as_dict(balance: Books) -> dict[str, Any]:
    """Return the books as JSON."""
    return {
        "accepted": balance.accepted,
        "captured": {verdict.value: count for verdict, count in balance.captured.items()},
        "rejected": dict(balance.rejected),
        "expired": balance.expired,
        "pending": balance.pending,
        "never_read": balance.never_read,
        "waiting_for_next_reading": balance.pending - balance.never_read,
        "next_reading_at": format_time(balance.next_reading_at),
        "balanced": balance.balanced,
    }


def books_by_workspace(balances: Mapping[str, Books]) -> dict[str, Any]:
    """Return the books of each workspace as JSON."""
    return {name: books_as_dict(balance) for name, balance in sorted(balances.items())}


def book_lines(balance: Books, balances: Mapping[str, Books]) -> list[str]:
    """Return the books as lines of text, with a line for each workspace if there are several.

    Of more than ``MAX_WORKSPACES``, only those with most lost pairs and then most pending ones have a line.
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
        *(_workspace_book_lines(balances) if len(balances) > 1 else []),
    ]


def _workspace_book_lines(balances: Mapping[str, Books]) -> list[str]:
    ranked = sorted(balances.items())
    if len(ranked) > MAX_WORKSPACES:
        ranked.sort(key=lambda item: (-item[1].expired - sum(item[1].rejected.values()), -item[1].pending))
    lines = [_book_line(f'"{name}"', each) for name, each in ranked[:MAX_WORKSPACES]]
    if rest := [each for _, each in ranked[MAX_WORKSPACES:]]:
        lines.append(_book_line(plural(len(rest), "other"), Books.sum(rest)))
    return lines


def limit_lines(label: str, lines: Sequence[str]) -> list[str]:
    """Return the lines about the first workspaces, and one that counts the others."""
    more = len(lines) - MAX_WORKSPACES
    shown = list(lines[:MAX_WORKSPACES])
    return [*shown, f"{label:<10} {plural(more, 'more workspace')}; --json lists all"] if more > 0 else shown


def _pending(balance: Books) -> str:
    """Describe how many pending pairs were never read, and how many wait for their next reading."""
    waiting = balance.pending - balance.never_read
    parts = [f"{balance.never_read} never read"] if balance.never_read else []
    if waiting:
        at = balance.next_reading_at
        when = f", the next at {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if at is not None else ""
        parts.append(f"{waiting} read before and waiting for {'its' if waiting == 1 else 'their'} next reading{when}")
    return ": " + ", ".join(parts) if parts else ""


def _book_line(name: str, balance: Books) -> str:
    captured, rejected = sum(balance.captured.values()), sum(balance.rejected.values())
    return (
        f"workspace  {name}: {plural(balance.accepted, 'pair')}, {captured} captured, {rejected} rejected, "
        f"{balance.expired} expired, {balance.pending} pending"
    )


def list_lines(listed: "Input", rejects: "RejectsFile", *, see_file: bool = True) -> list[str]:
    """Return what was read, not read or skipped in a list, and its notes. ``see_file`` names the file of rejects."""
    where = str(rejects.path) if see_file else None
    unread = unread_lines(rejects.count, listed.lines, rejects.reasons, where=where)
    return [*read_lines(listed.formats), *unread, *skipped_lines(listed.skipped), *note_lines(listed.notes)]


def read_lines(formats: Sequence[str]) -> list[str]:
    """Return what was read: a line for each list."""
    return [f"read       {printable(each)}" for each in formats]


def unread_lines(bad: int, of: int, reasons: Sequence[str], *, where: str | None = None) -> list[str]:
    """Return how many lines could not be read, the first reasons, and the file with all of them."""
    if not bad:
        return []
    see = f", see {where}" if where else ""
    return [f"unread     {bad} of {plural(of, 'line')}{see}", *(f"           {each}" for each in reasons)]


def note_lines(notes: Sequence[str]) -> list[str]:
    """Return the notes on lists as lines of text; paths and ids in them may contain any character."""
    return [f"note       {printable(each)}" for each in notes]


def skipped_lines(skipped: Mapping[str, int]) -> list[str]:
    """Return what a source skipped, by cause."""
    return [f"skipped    {cause}: {count}" for cause, count in sorted(skipped.items())]


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
