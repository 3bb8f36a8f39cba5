"""Reads lines of text in bounded memory, whatever the text contains."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

MAX_CHARACTERS = 1 << 20
"""The length of the longest line or CSV record that is read. The rest of a longer one is skipped."""

_PIECE_CHARACTERS = 65_536


class TextFile(Protocol):
    """A text file that was opened with ``newline=""``, so a single carriage return also ends a line."""

    def readline(self, characters: int, /) -> str:
        """Return a line or its first characters, or an empty text at the end."""
        ...


class Line(NamedTuple):
    """A line with its line end. If ``whole`` is False, it is too long, and ``text`` is its beginning."""

    number: int
    text: str
    whole: bool


class Piece(NamedTuple):
    """A line or a part of it. ``ends_line`` is True for the last part."""

    number: int
    text: str
    ends_line: bool


def read_pieces(file: TextFile) -> Iterator[Piece]:
    """Yield the lines of a text, long ones in several pieces."""
    number, ends_line = 0, True
    while text := file.readline(_PIECE_CHARACTERS):
        number += ends_line
        ends_line = text.endswith(("\n", "\r"))
        yield Piece(number, text, ends_line)


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
