"""What becomes of lines that name no pair: a file of them, and the first reasons to show."""

from pathlib import Path
from typing import Protocol

import orjson

from harvester.model import BadLine
from harvester.private_files import append_private
from harvester.text import printable

_SHOWN_REASONS = 3


class Rejects(Protocol):
    """Who takes bad lines."""

    def add(self, bad: BadLine) -> None:
        """Take one."""
        ...


class RejectsFile:
    """Bad lines as NDJSON, in a file that is begun anew by each run, and only made when there is one.

    ``count`` is the number of lines, ``reasons`` says of the first ones where they stand and what is wrong with them.
    """

    def __init__(self, path: Path) -> None:
        """Take the path; a file of an earlier run is removed."""
        self.path = path
        self.count = 0
        self.reasons: list[str] = []
        path.unlink(missing_ok=True)

    def add(self, bad: BadLine) -> None:
        """Write one bad line."""
        self.count += bad.lines
        source, field, problem, text = (printable(each) for each in (bad.source, bad.field, bad.problem, bad.text))
        if len(self.reasons) < _SHOWN_REASONS:
            self.reasons.append(f"{source}:{bad.line}: {field}{': ' if field else ''}{problem}")
        line = {"source": source, "line": bad.line, "field": field, "problem": problem, "text": text}
        if bad.lines > 1:
            line["lines"] = bad.lines
        with append_private(self.path) as file:
            file.write(orjson.dumps(line) + b"\n")
