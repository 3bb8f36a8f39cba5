"""Checks that the known members are all members of the rows of a part, without parsing each row.

The names of members are in quotes, and so are texts. If a part has exactly as many quotes as its known members need,
its rows have no other member with a value. Texts and nulls are counted too: if a fixed member were absent or not a
text, an unknown member could have the quotes that it lacks. If rows have another form, for example spaces between
members, the counts differ, and the caller parses all rows. The check costs a third of parsing every row for its names.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from harvester.datasets.part_files import decompress

FIXED_MEMBERS = (
    "workspace",
    "campaign_id",
    "send_id",
    "date",
    "level",
    "channel",
    "variation_name",
    "variation_api_id",
    "reading",
    "captured_at",
    "verdict",
    "batch_id",
)
"""The members that every row has. Their values are texts or null."""

OBJECT_BYTES = 1_048_576
"""The default length limit for one row. DuckDB reserves twice this for each thread."""


class Marks(NamedTuple):
    """What is counted in the bytes of rows."""

    quotes: int = 0
    """The quotes around names and texts, not those inside a text."""

    texts: int = 0
    """The members whose value is a text."""

    nulls: int = 0
    """The members whose value is null."""


@dataclass
class Layout:
    """What was found in the bytes of some parts."""

    names: set[str] = field(default_factory=set)
    """The members of the rows that were parsed: one row of each chunk."""

    marks: Marks = field(default_factory=Marks)
    """The marks in all rows."""

    object_bytes: int = OBJECT_BYTES
    """The length limit for one row that DuckDB reads, in bytes."""

    def add_part(self, part: Path) -> None:
        """Read a part to its end. Raises ``SinkError`` for a damaged part."""
        pieces: list[bytes] = []
        for chunk in decompress(part):
            pieces.append(chunk)
            if b"\n" in chunk:
                lines = b"".join(pieces)
                end = lines.rfind(b"\n") + 1
                self._add_lines(lines, end)
                pieces = [lines[end:]]
        if any(pieces):
            lines = b"".join(pieces) + b"\n"
            self._add_lines(lines, len(lines))

    def _add_lines(self, lines: bytes, end: int) -> None:
        """Count the marks of complete lines, which end at ``end``, and parse the last one."""
        quotes, texts, nulls = lines.count(b'"', 0, end), lines.count(b'":"', 0, end), lines.count(b'":null', 0, end)
        if b"\\" in lines:
            unescaped = lines[:end].replace(b"\\\\", b"")
            quotes -= unescaped.count(b'\\"')
            nulls -= unescaped.count(b'\\":null')
        self.marks = Marks(self.marks.quotes + quotes, self.marks.texts + texts, self.marks.nulls + nulls)
        self._limit_rows(lines, end)
        try:
            row = orjson.loads(lines[lines.rfind(b"\n", 0, end - 1) + 1 : end])
        except orjson.JSONDecodeError:
            return  # DuckDB names the line, or accepts it and finds its members
        if isinstance(row, dict):
            self.names.update(row)

    def _limit_rows(self, lines: bytes, end: int) -> None:
        """Raise the length limit if a line is longer."""
        start = 0
        while end - start > OBJECT_BYTES:
            after = lines.rfind(b"\n", start, start + OBJECT_BYTES) + 1
            if not after:
                after = lines.index(b"\n", start) + 1
                self.object_bytes = max(self.object_bytes, after - start + 1024)
            start = after
