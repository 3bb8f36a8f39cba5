"""Output that several commands share: JSON, counts, books, and notes on lists."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from harvester.cli.layout import wrap
from harvester.cli.streams import CLOSED_STDOUT, DISCARD
from harvester.clock import LARGE_DIFFERENCE_SECONDS, format_difference
from harvester.errors import UsageError
from harvester.place import LedgerLocation
from harvester.text import printable

if TYPE_CHECKING:
    from harvester.ledger import ClockDifference
    from harvester.sources import Input, RejectsFile

MAX_WORKSPACES = 10
"""How many workspaces are listed in text; JSON lists all."""


DEFAULT_WIDTH = 80
"""The width of a terminal that does not know its own."""


def check_stdout(alternative: str = DISCARD) -> None:
    """Raise ``UsageError`` if standard output was closed at the start: what is written to it would be lost."""
    if sys.__stdout__ is None:
        raise UsageError(CLOSED_STDOUT.format(alternative))


def get_width(stream: TextIO) -> int | None:
    """Return the width of a terminal, in characters; None for a pipe or a file."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except OSError:
        return DEFAULT_WIDTH


def use_color(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that has colors, and the user has not set ``NO_COLOR``."""
    context = click.get_current_context(silent=True)
    return stream.isatty() and (context is None or context.color is not False)


_SERIOUS, _NOTABLE = (
    ("halted", "failed", "harvester:"),
    ("rejected", "expired", "at risk", "unread", "unsure", "sealed"),
)
_LABEL_CHARACTERS = 11
_LABEL = re.compile(r"[a-z ]{9}  ")


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines of a label and a text. On a terminal, they are wrapped at words, and problems have a color."""
    stream = sys.stderr if err else sys.stdout
    width, color = get_width(stream), use_color(stream)
    for line in lines:
        style = _choose_color(line) if color else None
        indent = _LABEL_CHARACTERS if _LABEL.match(line) else len(line) - len(line.lstrip())
        for each in wrap(line, width, indent=indent):
            click.echo(click.style(each, fg=style) if style else each, err=err)


def _choose_color(line: str) -> str | None:
    """Return the color of a line that reports a problem."""
    label, text = line[:_LABEL_CHARACTERS].strip(), line[_LABEL_CHARACTERS:]
    if label in _SERIOUS or "NOT BALANCED" in text:
        return "red"
    return "yellow" if label in _NOTABLE and text.split()[0] != "0" else None


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


def clock_line(known: "ClockDifference | None", location: LedgerLocation) -> str:
    """Return the line about this machine's clock, for commands that make no request."""
    if known is None and not isinstance(location, Path):
        return "clock      this machine's; a ledger in a database does not record whether it agrees with Braze's"
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


def limit_lines(label: str, lines: Sequence[str]) -> list[str]:
    """Return the lines about the first workspaces, and one that counts the others."""
    more = len(lines) - MAX_WORKSPACES
    shown = list(lines[:MAX_WORKSPACES])
    return [*shown, f"{label:<10} {plural(more, 'more workspace')}; --json lists all"] if more > 0 else shown


def describe_list(listed: "Input", rejects: "RejectsFile", *, see_file: bool = True) -> list[str]:
    """Return what was read, not read or skipped in a list, and its notes. ``see_file`` names the file of rejects."""
    where = str(rejects.file) if see_file and rejects.file else None
    unread = unread_lines(rejects.count, listed.lines, rejects.reasons, where=where)
    notes = note_lines([*listed.notes, *rejects.notes])
    return [*describe_formats(listed.formats), *unread, *skipped_lines(listed.skipped), *notes]


def describe_formats(formats: Sequence[str]) -> list[str]:
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
