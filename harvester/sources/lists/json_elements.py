"""Splits a text into JSON values in bounded memory: the elements of one array, or objects over several lines.

It only follows quotes and brackets; whether a value is JSON is decided by its parser.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from harvester.sources.lists.lines import MAX_CHARACTERS, TextFile, read_pieces

_MARKS = re.compile(r'"|[\[{]+|[\]}]+|,')
_MARKS_IN_STRING = re.compile(r'["\\]')


class Element(NamedTuple):
    """A value: its first line, its number of lines, and its text, or its beginning if it is not ``whole``.

    ``problem`` says why no value can be read here.
    """

    line: int
    lines: int
    text: str
    whole: bool = True
    problem: str = ""


def read_json_elements(file: TextFile) -> Iterator[Element]:
    """Yield the values of a text that begins with an array or an object."""
    splitter = _Splitter()
    for piece in read_pieces(file):
        yield from splitter.split(piece.text, piece.number)
    yield from splitter.finish()


class _Splitter:
    """Splits pieces of a text into values. It stores at most ``MAX_CHARACTERS`` of a value."""

    def __init__(self) -> None:
        self._in_array: bool | None = None
        self._array_ended = False
        self._depth = 0
        self._in_string = False
        self._skip_next = False
        self._texts: list[str] = []
        self._characters = 0
        self._first_line = self._last_line = 0

    def split(self, text: str, line: int) -> Iterator[Element]:
        """Yield the values that end in a piece of text."""
        self._last_line = line
        if self._array_ended:
            self._add(text, line)
            return
        begins = at = self._begin(text)
        while at < len(text):
            if self._in_string:
                at = self._skip_string(text, at)
                continue
            mark = _MARKS.search(text, at)
            if mark is None:
                break
            at = mark.end()
            ends = self._follow_mark(mark, text)
            if ends is not None:
                self._add(text[begins:ends], line)
                yield from self._take()
                begins = at = ends + (text[ends : ends + 1] in (",", "]"))
                if self._array_ended:
                    break
        self._add(text[begins:], line)

    def _begin(self, text: str) -> int:
        """Return where the first value begins: after the bracket of the array, if the text is one."""
        if self._in_array is None and text.strip():
            self._in_array = text.lstrip().startswith("[")
            self._depth = int(self._in_array)
            return text.index("[") + 1 if self._in_array else 0
        return 0

    def _skip_string(self, text: str, at: int) -> int:
        """Return the position after the end of a string or after an escape, or the end of the text."""
        if self._skip_next:
            self._skip_next = False
            return at + 1
        mark = _MARKS_IN_STRING.search(text, at)
        if mark is None:
            return len(text)
        self._in_string, self._skip_next = mark[0] != '"', mark[0] == "\\"
        return mark.end()

    def _follow_mark(self, mark: re.Match[str], text: str) -> int | None:
        """Update the depth. Returns the end of a value if it ends here."""
        base = int(bool(self._in_array))
        if mark[0] == '"':
            self._in_string = True
        elif mark[0] == ",":
            return mark.start() if self._in_array and self._depth == base else None
        elif text[mark.start()] in "[{":
            self._depth += len(mark[0])
        elif self._depth - len(mark[0]) < int(bool(self._in_array)):  # the array ends inside the run of brackets
            ends, self._array_ended = mark.start() + self._depth - base, True
            self._depth = 0
            return ends
        else:
            self._depth -= len(mark[0])
            return mark.end() if not self._in_array and self._depth == 0 else None
        return None

    def _add(self, text: str, line: int) -> None:
        if not self._characters:
            text = text.lstrip()
            self._first_line = line
        self._characters += len(text)
        if self._characters <= MAX_CHARACTERS or not self._texts:
            self._texts.append(text)

    def _take(self) -> Iterator[Element]:
        """Yield the stored value, if it is not blank."""
        text, whole = "".join(self._texts), self._characters <= MAX_CHARACTERS
        if text.strip():
            yield Element(self._first_line, self._last_line - self._first_line + 1, text, whole)
        self._texts, self._characters = [], 0

    def finish(self) -> Iterator[Element]:
        """Yield the last value, and a problem if the array has no end or something follows it."""
        if self._array_ended:
            for element in self._take():
                yield element._replace(problem="the text after the end of the array cannot be read")
            return
        yield from self._take()
        if self._in_array:
            yield Element(self._last_line, 1, "", problem="the array has no end, so the file may be incomplete")
