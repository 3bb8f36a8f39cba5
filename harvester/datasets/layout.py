"""Finds out which members the rows of a part have, without parsing the rows.

A member's name stands in quotes, and so does a text. If the quotes in a part are exactly those of the members that are
known, its rows have no other members. This costs a tenth of parsing every row for its names.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

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
"""The members of every row, even if they are null. All are texts."""

OBJECT_BYTES = 1_048_576
"""The default length limit for one row. DuckDB reserves twice this for each thread."""


@dataclass
class Layout:
    """What the bytes of some parts say about their rows."""

    names: set[str] = field(default_factory=set)
    """The members of the rows that were parsed: one in each chunk."""

    quotes: int = 0
    """The quotes around names and texts. Quotes inside a text are not counted."""

    has_fixed_members: bool = True
    """Whether the rows that were parsed have all ``FIXED_MEMBERS``."""

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
        """Count the quotes of complete lines, which end at ``end``, and parse the last one."""
        self.quotes += lines.count(b'"', 0, end)
        if b"\\" in lines:
            self.quotes -= lines[:end].replace(b"\\\\", b"").count(b'\\"')
        self._limit_rows(lines, end)
        try:
            row = json.loads(lines[lines.rfind(b"\n", 0, end - 1) + 1 : end])
        except ValueError:
            return  # DuckDB names the line
        if isinstance(row, dict):
            self.names.update(row)
            self.has_fixed_members = self.has_fixed_members and row.keys() >= set(FIXED_MEMBERS)

    def _limit_rows(self, lines: bytes, end: int) -> None:
        """Raise the length limit if a line is longer."""
        start = 0
        while end - start > OBJECT_BYTES:
            after = lines.rfind(b"\n", start, start + OBJECT_BYTES) + 1
            if not after:
                after = lines.index(b"\n", start) + 1
                self.object_bytes = max(self.object_bytes, after - start + 1024)
            start = after
