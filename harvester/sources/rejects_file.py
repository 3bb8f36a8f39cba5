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

    ``count`` is the number of lines. ``reasons`` describes the first bad lines: location, field and problem.
    """

    def __init__(self, path: Path) -> None:
        """Remove the file of an earlier run."""
        self.path = path
        self.count = 0
        self.reasons: list[str] = []
        path.unlink(missing_ok=True)

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
        make_private_folder(self.path.parent)
        with append_private(self.path) as file:
            file.write(orjson.dumps(record) + b"\n")
