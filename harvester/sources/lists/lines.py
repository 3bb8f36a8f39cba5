"""Reads lines of text in bounded memory, whatever the text contains."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

MAX_CHARACTERS = 1 << 20
"""The length of the longest line or CSV record that is read. The rest of a longer one is skipped."""

_PIECE_CHARACTERS = 65_536
_PEEKED_LINES = 10
_MAX_EQUAL_LINES = 1000


class TextFile(Protocol):
    """A text file that was opened with ``newline=""``, so a single carriage return also ends a line."""

    def readline(self, characters: int, /) -> str:
        """Return a line or its first characters, or an empty text at the end."""
        ...


class PeekedText:
    """A text whose first lines can be seen before they are read. Long lines are split into pieces."""

    def __init__(self, file: TextFile) -> None:
        """Read from ``file``."""
        self._file = file
        self._pieces: deque[str] = deque()

    def readline(self, characters: int = _PIECE_CHARACTERS) -> str:
        """Return the next piece, or an empty text at the end."""
        return self._pieces.popleft() if self._pieces else self._file.readline(characters)

    def peek_line(self) -> str:
        """Return the next piece without reading it, or an empty text at the end."""
        if not self._pieces and (piece := self._file.readline(_PIECE_CHARACTERS)):
            self._pieces.append(piece)
        return self._pieces[0] if self._pieces else ""

    def skip_line(self) -> None:
        """Read the rest of the line."""
        while (piece := self.readline()) and not piece.endswith(("\n", "\r")):
            pass

    def skip_blank_lines(self) -> int:
        """Read blank lines, up to a limit, and return their number."""
        for number in range(_MAX_EQUAL_LINES):
            piece = self.readline()
            if not piece.isspace():
                self._pieces.appendleft(piece)
                return number
        return _MAX_EQUAL_LINES

    def peek_lines(self) -> list[str]:
        """Return the next lines, up to a limit of lines and characters, without reading them."""
        while len(self._pieces) < _PEEKED_LINES and sum(map(len, self._pieces)) < _PIECE_CHARACTERS:
            if not (piece := self._file.readline(_PIECE_CHARACTERS)):
                break
            self._pieces.append(piece)
        return list(self._pieces)


class Line(NamedTuple):
    """A line with its line end. If ``whole`` is False, it is too long, and ``text`` is its beginning."""

    number: int
    text: str
    whole: bool


class Piece(NamedTuple):
    """A line or a part of it. ``ends_line`` is True for the last part.

    Equal blank lines are one piece with the number of the last one, so that millions of them are read fast.
    """

    number: int
    text: str
    ends_line: bool


def read_pieces(file: TextFile, *, lines_before: int = 0) -> Iterator[Piece]:
    """Yield the lines of a text, long ones in several pieces. Their numbers begin after ``lines_before``."""
    number, ends_line = lines_before, True
    text = file.readline(_PIECE_CHARACTERS)
    while text:
        begins_line, ends_line = ends_line, text.endswith(("\n", "\r"))
        number += begins_line
        if begins_line and ends_line and text.isspace():
            equal = 1
            while (after := file.readline(_PIECE_CHARACTERS)) == text and equal < _MAX_EQUAL_LINES:
                equal += 1
            number += equal - 1
            yield Piece(number, text * equal, ends_line)
            text = after
        else:
            yield Piece(number, text, ends_line)
            text = file.readline(_PIECE_CHARACTERS)


def read_lines(file: TextFile) -> Iterator[Line]:
    """Yield the lines of a text."""
    texts: list[str] = []
    number = characters = 0
    for number, text, ends_line in read_pieces(file):
        characters += len(text)
        if characters <= MAX_CHARACTERS:
            texts.append(text)
        if ends_line:
            yield Line(number, "".join(texts), characters <= MAX_CHARACTERS)
            texts, characters = [], 0
    if characters:
        yield Line(number, "".join(texts), characters <= MAX_CHARACTERS)
