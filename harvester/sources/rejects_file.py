"""Writes the rejects file: every bad line of a command's input, with its location and reason."""

from pathlib import Path
from typing import Protocol

import orjson

from harvester.model import BadLine
from harvester.private_files import append_private, make_private_folder
from harvester.sources.fields import format_problem
from harvester.text import printable

_FIRST_REASONS = 3


class BadLineCollector(Protocol):
    """Collects the bad lines of an input."""

    def add(self, bad: BadLine) -> None:
        """Add one bad line."""
        ...


class RejectsFile:
    """Writes bad lines to an NDJSON file. Each run creates a new file, at its first bad line.

    ``count`` is the number of lines. ``reasons`` describes the first bad lines: location, field and problem. If the
    file cannot be written, the other lines are read all the same.
    """

    def __init__(self, path: Path) -> None:
        """Remove the file of an earlier run."""
        self.path = path
        self.count = 0
        self.reasons: list[str] = []
        self._problem: str | None = None
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._problem = error.strerror

    @property
    def file(self) -> Path | None:
        """The file with all bad lines; None if there are none, or if it cannot be written."""
        return self.path if self.count and self._problem is None else None

    @property
    def notes(self) -> list[str]:
        """What to do if the file cannot be written."""
        if not self.count or self._problem is None:
            return []
        note = (
            f"{self.path} does not have all bad lines, because it cannot be written: {self._problem}. The other lines "
            "were read. To get all bad lines, make that folder writable, and repeat the command"
        )
        return [note]

    def add(self, bad: BadLine) -> None:
        """Append one bad line."""
        self.count += bad.lines
        source, field, problem, text = (printable(each) for each in (bad.source, bad.field, bad.problem, bad.text))
        if len(self.reasons) < _FIRST_REASONS:
            location = f"{source}:{bad.line}" if bad.line else source
            self.reasons.append(f"{location}: {format_problem(field, problem)}")
        record = {"source": source, "line": bad.line, "field": field, "problem": problem, "text": text}
        if bad.lines > 1:
            record["lines"] = bad.lines
        if self._problem is not None:
            return
        try:
            self._write(orjson.dumps(record) + b"\n")
        except OSError as error:
            self._problem = error.strerror

    def _write(self, line: bytes) -> None:
        make_private_folder(self.path.parent)
        with append_private(self.path) as file:
            file.write(line)
