"""Lines of text and the CSV records in them, one at a time, in bounded memory whatever the text holds."""

import csv
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple, Protocol

MAX_CHARACTERS = 1 << 20
"""The longest line, and the longest CSV record, that is read. Of longer ones only the end is looked for."""

_PIECE_CHARACTERS = 65_536
_SHOWN_CHARACTERS = 500
_DELIMITER = ","

csv.field_size_limit(MAX_CHARACTERS)  # a record's length is bounded here, not a cell's


class Readable(Protocol):
    """A text, opened with ``newline=""``, so that a carriage return alone ends a line too."""

    def readline(self, characters: int, /) -> str:
        """Give a line, or as many characters of it; nothing at the end."""
        ...


class Line(NamedTuple):
    """A line with its end; of one that is longer than ``MAX_CHARACTERS``, and so not ``whole``, the beginning."""

    number: int
    text: str
    whole: bool


class _Piece(NamedTuple):
    """A line or a part of it; ``last`` where the line ends with it."""

    number: int
    text: str
    last: bool


class Record(NamedTuple):
    """The cells of a CSV record and how many lines it takes, from ``line`` on; or ``problem``, why it has no cells."""

    line: int
    lines: int
    cells: list[str]
    problem: str = ""
    text: str = ""


def _pieces_of(file: Readable) -> Iterator[_Piece]:
    number, last = 0, True
    while text := file.readline(_PIECE_CHARACTERS):
        number += last
        last = text.endswith(("\n", "\r"))
        yield _Piece(number, text, last)


def lines_of(file: Readable) -> Iterator[Line]:
    """Give a text's lines."""
    texts: list[str] = []
    number = characters = 0
    for number, text, last in _pieces_of(file):
        characters += len(text)
        if characters <= MAX_CHARACTERS:
            texts.append(text)
        if last:
            yield Line(number, "".join(texts), characters <= MAX_CHARACTERS)
            texts, characters = [], 0
    if characters:
        yield Line(number, "".join(texts), characters <= MAX_CHARACTERS)


def records_of(file: Readable) -> Iterator[Record]:
    """Give a text's CSV records (RFC 4180, as spreadsheets write it), blank lines left out.

    A quoted cell may hold line ends. A quote that never ends takes in all lines behind it, and one that ends in the
    middle of a cell, lines later, was most likely never meant to begin: both are problems that name the quote's line.
    """
    pieces = _pieces_of(file)
    for piece in pieces:
        if piece.last and '"' not in piece.text:
            if text := piece.text.rstrip("\r\n"):
                yield Record(piece.number, 1, text.split(_DELIMITER))
        elif piece.last and (cells := _quick(piece.text)) is not None:
            yield Record(piece.number, 1, cells)
        elif (record := _Quoted().read(piece, pieces)).cells or record.problem:
            yield record


def _quick(line: str) -> list[str] | None:
    """Give the cells of a line whose quotes all end in it where they should; None for others."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error:
        return None


class _State(Enum):
    """Where a record's text stands, by the rules of the ``csv`` module."""

    CELL_BEGINS = auto()
    IN_CELL = auto()
    IN_QUOTES = auto()
    BEHIND_QUOTE = auto()


class _Quoted:
    """Reads one record that may hold quotes: follows them from line to line, and keeps what is not too long."""

    def __init__(self) -> None:
        """Begin at the start of a record."""
        self._state = _State.CELL_BEGINS
        self._texts: list[str] = []
        self._characters = 0
        self._quote_line = 0
        self._broken = False

    def read(self, first: _Piece, pieces: Iterator[_Piece]) -> Record:
        """Take pieces until a line ends and no quote is open."""
        piece: _Piece | None = first
        last = first
        while piece is not None:
            last = piece
            self._take(piece)
            if piece.last and self._state is not _State.IN_QUOTES:
                break
            piece = next(pieces, None)
        lines = last.number - first.number + 1
        if problem := self._problem(lines, last.number):
            return Record(first.number, lines, [], problem, self._texts[0][:_SHOWN_CHARACTERS])
        try:  # as one text: line ends within it are those of quoted cells
            return Record(first.number, lines, next(csv.reader(["".join(self._texts)]), []))
        except csv.Error as error:
            return Record(first.number, lines, [], f"is not CSV: {error}", self._texts[0][:_SHOWN_CHARACTERS])

    def _problem(self, lines: int, last_line: int) -> str:
        skipped = f"; {lines} lines were skipped" if lines > 1 else ""
        if self._state is _State.IN_QUOTES:
            return (
                f"a quote begins in line {self._quote_line} and never ends, so it takes in all lines up to line "
                f"{last_line}, the last one; close it or double it{skipped}"
            )
        if self._broken and lines > 1:
            return (
                f"the quote that begins in line {self._quote_line} ends in the middle of a cell in line {last_line}: "
                f"one of its quotes is missing or not doubled{skipped}"
            )
        if self._characters > MAX_CHARACTERS:
            return f"the row has {self._characters} characters, and at most {MAX_CHARACTERS} are read{skipped}"
        return ""

    def _take(self, piece: _Piece) -> None:
        self._characters += len(piece.text)
        if self._characters <= MAX_CHARACTERS or not self._texts:
            self._texts.append(piece.text)
        self._follow(piece)

    def _follow(self, piece: _Piece) -> None:
        """Find out where a piece leaves off: within quotes, or not."""
        text, at = piece.text, 0
        while at < len(text):
            if self._state is _State.IN_QUOTES:
                at = text.find('"', at) + 1
                if not at:
                    return
                self._state = _State.BEHIND_QUOTE
            elif self._state is _State.BEHIND_QUOTE:
                doubled = text[at] == '"'
                self._broken |= not doubled and text[at] not in "\r\n " + _DELIMITER
                self._state = _State.IN_QUOTES if doubled else _State.IN_CELL
                at += doubled
            elif self._state is _State.CELL_BEGINS:
                quoted = text[at] == '"'
                if quoted:
                    self._quote_line = piece.number
                self._state = _State.IN_QUOTES if quoted else _State.IN_CELL
                at += quoted
            else:  # cells without quotes are passed over together
                at = text.find(_DELIMITER + '"', at) + 1
                self._state = _State.CELL_BEGINS if at or text.endswith(_DELIMITER) else _State.IN_CELL
                if not at:
                    return
