"""Reads CSV records (RFC 4180, as spreadsheets write it) in bounded memory, whatever the text contains.

A quoted cell may contain line ends. Two mistakes are detected and reported with the line of the quote. A quote that
never ends would include all lines after it. A quote that ends in the middle of a cell on a later line was probably
not the beginning of a quoted cell.
"""

import csv
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from harvester.sources.lists.lines import MAX_CHARACTERS, Piece, TextFile, read_pieces

_MAX_QUOTED_CHARACTERS = 500

csv.field_size_limit(MAX_CHARACTERS)  # this module limits the length of a record, not of a cell


class Record(NamedTuple):
    """A record: its first line, its number of lines and its cells.

    If the record cannot be read, ``problem`` says why, ``text`` is its beginning, and there are no cells. ``ended`` is
    False for a last line without a line end. Blank lines are a record without cells. ``types``
    contains the types of cells of a workbook that cannot be ids, by position.
    """

    line: int
    lines: int
    cells: list[str]
    problem: str = ""
    text: str = ""
    ended: bool = True
    types: Mapping[int, str] = MappingProxyType({})


def read_csv_records(file: TextFile, *, separator: str = ",", lines_before: int = 0) -> Iterator[Record]:
    """Yield the records of a CSV text. An empty record is not a row; it only lets the reader show progress or stop."""
    pieces = read_pieces(file, lines_before=lines_before)
    for piece in pieces:
        if piece.ends_line and '"' not in piece.text:
            text = piece.text.rstrip("\r\n")
            yield Record(piece.number, 1, text.split(separator) if text else [])
        elif piece.ends_line and (cells := _parse_line(piece.text, separator)) is not None:
            yield Record(piece.number, 1, cells)
        else:
            yield from _QuotedRecordReader(separator).read(piece, pieces)


def _parse_line(line: str, separator: str) -> list[str] | None:
    """Return the cells of a line if all its quotes end correctly on it; otherwise None."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return None


class _State(Enum):
    """The position in a record, according to the rules of the ``csv`` module."""

    CELL_BEGINS = auto()
    IN_CELL = auto()
    IN_QUOTES = auto()
    AFTER_QUOTE = auto()


class _QuotedRecordReader:
    """Reads one record that may contain quotes and line ends. It stores at most ``MAX_CHARACTERS`` of the record."""

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._state = _State.CELL_BEGINS
        self._texts: list[str] = []
        self._characters = 0
        self._quote_line = 0
        self._quote_ends_in_cell = False

    def read(self, first: Piece, pieces: Iterator[Piece]) -> Iterator[Record]:
        """Read pieces until a line ends outside quotes, and yield their record."""
        last = first
        for last in chain([first], pieces):
            self._add(last)
            if last.ends_line and self._state is not _State.IN_QUOTES:
                break
            yield Record(last.number, 1, [])
        yield self._create_record(first, last)

    def _create_record(self, first: Piece, last: Piece) -> Record:
        lines = last.number - first.number + 1
        if problem := self._find_problem(lines, last.number):
            return Record(first.number, lines, [], problem, self._texts[0][:_MAX_QUOTED_CHARACTERS])
        try:  # parsed as one text: line ends inside it belong to quoted cells
            cells = next(csv.reader(["".join(self._texts)], delimiter=self._separator), [])
            return Record(first.number, lines, cells, ended=last.ends_line)
        except csv.Error as error:
            problem = f"the line is not CSV: {error}"
            return Record(first.number, lines, [], problem, self._texts[0][:_MAX_QUOTED_CHARACTERS])

    def _find_problem(self, lines: int, last_line: int) -> str:
        skipped = f"; {lines} lines were skipped" if lines > 1 else ""
        if self._state is _State.IN_QUOTES:
            return (
                f"a quote begins in line {self._quote_line} and never ends, so it includes all lines up to the last "
                f"one, line {last_line}; close the quote or double it{skipped}"
            )
        if self._quote_ends_in_cell and lines > 1:
            return (
                f"the quote that begins in line {self._quote_line} ends in the middle of a cell in line {last_line}; "
                f"add the missing quote or double one{skipped}"
            )
        if self._characters > MAX_CHARACTERS:
            return f"the row has {self._characters} characters; the limit is {MAX_CHARACTERS}{skipped}"
        return ""

    def _add(self, piece: Piece) -> None:
        self._characters += len(piece.text)
        if self._characters <= MAX_CHARACTERS or not self._texts:
            self._texts.append(piece.text)
        self._follow_quotes(piece)

    def _follow_quotes(self, piece: Piece) -> None:
        """Update the state to the end of a piece."""
        text, at = piece.text, 0
        while at < len(text):
            if self._state is _State.IN_QUOTES:
                at = text.find('"', at) + 1
                if not at:
                    return
                self._state = _State.AFTER_QUOTE
            elif self._state is _State.AFTER_QUOTE:
                doubled = text[at] == '"'
                self._quote_ends_in_cell |= not doubled and text[at] not in "\r\n " + self._separator
                self._state = _State.IN_QUOTES if doubled else _State.IN_CELL
                at += doubled
            elif self._state is _State.CELL_BEGINS:
                quoted = text[at] == '"'
                if quoted:
                    self._quote_line = piece.number
                self._state = _State.IN_QUOTES if quoted else _State.IN_CELL
                at += quoted
            else:  # skip all cells without quotes in one step
                at = text.find(self._separator + '"', at) + 1
                self._state = _State.CELL_BEGINS if at or text.endswith(self._separator) else _State.IN_CELL
                if not at:
                    return
