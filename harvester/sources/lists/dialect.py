"""Detects how a CSV text is written: its separator, and where its header begins.

The header decides: with the right separator, it contains the columns of a pair. The first line may be Excel's
``sep=;``, which overrides this. Blank lines and lines that begin with ``#`` are skipped before the header.
"""

import csv
import re
from collections.abc import Generator, Sequence
from typing import NamedTuple

from harvester.errors import UsageError
from harvester.sources.columns import find_field
from harvester.sources.fields import ID_FIELDS
from harvester.sources.lists.lines import PeekedText
from harvester.sources.lists.list_options import ListOptions

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""The separators that are detected, and their names. Of two that fit equally, the first one counts."""

_SEPARATOR_LINE = re.compile(r'"?sep=([^\w"\s]|\t)"?\s*', re.IGNORECASE)


class Dialect(NamedTuple):
    """The separator of a CSV text, and the number of lines before its header."""

    separator: str
    skipped_lines: int


def detect_dialect(name: str, text: PeekedText, options: ListOptions) -> Generator[None, None, Dialect]:
    """Read the lines before the header, and return the dialect. Yields in between: there may be millions.

    Raises ``UsageError`` for an unknown ``sep=`` line.
    """
    skipped = 0
    while (blank := text.skip_blank_lines()) or (line := text.peek_line()):
        if blank:
            skipped += blank
            yield
            continue
        if line.lower().lstrip('"').startswith("sep="):
            match = _SEPARATOR_LINE.fullmatch(line)
            if match is None:
                raise UsageError(f"{name}:{skipped + 1}: the line sep= names no separator; write for example sep=;")
            text.skip_line()
            return Dialect(match[1], skipped + 1)
        if not _is_comment(line, options):
            break
        text.skip_line()
        skipped += 1
        yield
    header = text.peek_lines()
    return Dialect(max(SEPARATORS, key=lambda separator: _rate_separator(header, separator, options)), skipped)


def _is_comment(line: str, options: ListOptions) -> bool:
    """Return whether a line begins with ``#`` and is no header, as some programs write it."""
    if not line.lstrip().startswith("#"):
        return False
    return bool(options.no_header) or all(
        _rate_separator([line], each, options)[0] < len(ID_FIELDS) for each in SEPARATORS
    )


def _rate_separator(lines: Sequence[str], separator: str, options: ListOptions) -> tuple[int, int]:
    """Return how well a separator fits the first row: by known columns, and then by the number of cells."""
    try:
        cells = next(csv.reader(lines, delimiter=separator), [])
    except csv.Error:
        return (0, 0)
    if options.no_header:
        return (int(len(cells) == len(options.no_header)), len(cells))
    return (len({find_field(cell, options.columns) for cell in cells} - {None}), len(cells))
