"""Arranges text for the width of a terminal. Pure.

A line for the progress is a list of *spans*: each has a text and the name of its style, for ``progress.py`` to draw.
"""

import textwrap
from collections.abc import Collection, Sequence
from typing import NamedTuple

from harvester.text import printable

GAP = "  "


class Span(NamedTuple):
    """A text in one style, such as ``green`` or ``bold red``; the default has none."""

    text: str
    style: str = ""


Line = list[Span]


class Field(NamedTuple):
    """A part of a line that is left out if the line is too long: those with the highest ``rank`` first, never 0."""

    text: str
    rank: int = 0
    style: str = ""


def fit_fields(fields: Sequence[Field], width: int) -> list[Field]:
    """Return the fields that fit into a line, without empty ones."""
    kept = [each for each in fields if each.text]
    while measure(kept) > width and (least := max(kept, key=lambda each: each.rank)).rank:
        kept.remove(least)
    return kept


def measure(fields: Sequence[Field]) -> int:
    """Return the length of a line of fields, gaps included."""
    return sum(len(each.text) for each in fields) + len(GAP) * max(0, len(fields) - 1)


def join_fields(fields: Sequence[Field]) -> Line:
    """Return the fields as one line, with gaps between them."""
    line = [Span(GAP if number % 2 else "") for number in range(2 * len(fields) - 1)]
    line[::2] = [Span(each.text, each.style) for each in fields]
    return line


def align_fields(rows: Sequence[Sequence[Field]], width: int, *, left: Collection[int] = (0,)) -> list[list[Field]]:
    """Pad the fields of each column to one length, and leave out columns that do not fit.

    All rows have the same columns. The columns ``left`` are aligned to the left, others to the right.
    """
    if not rows:
        return []
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        length = max(len(each.text) for each in column)
        padded = [each.text.ljust(length) if number in left else each.text.rjust(length) for each in column]
        columns.append([each._replace(text=text) for each, text in zip(column, padded, strict=True)])
    while columns and measure([column[0] for column in columns]) > width:
        least = max(columns, key=lambda column: max(each.rank for each in column))
        if not max(each.rank for each in least):
            break
        columns.remove(least)
    kept = zip(*(column for column in columns if column[0].text), strict=True)
    return [[*row[:-1], row[-1]._replace(text=row[-1].text.rstrip())] for row in kept]


def make_bar(share: float, cells: int, *, ascii_only: bool = False) -> Line:
    """Return a bar of some cells, filled to a share between 0 and 1."""
    halves = int(min(max(share, 0.0), 1.0) * cells * 2)
    if ascii_only:
        return [Span("#" * (halves // 2), "green"), Span("-" * (cells - halves // 2), "bright_black")]
    full, half = "━" * (halves // 2), "╸" * (halves % 2)
    return [Span(full + half, "green"), Span("━" * (cells - len(full + half)), "bright_black")]


def shorten(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters on one line: the end of a longer one becomes an ellipsis."""
    text = printable(text)
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def wrap(text: str, width: int | None, *, indent: int = 0) -> list[str]:
    """Wrap a line at words; further lines are indented. No width leaves it as it is.

    Spaces inside a line stay, and a word that is longer than the width is not broken.
    """
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * (indent if indent < width // 2 else 2),
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )
