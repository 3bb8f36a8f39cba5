"""Pairs from CSV and NDJSON files and from standard input, streamed line by line.

A line that names no pair becomes a ``BadLine``; the rest goes on. Ids are opaque: any ASCII text of 1 to 64
characters without NUL (which no database keeps as text), taken as it is but for blanks around a CSV field.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TextIO

import orjson

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, MAX_ID_CHARACTERS, BadLine, Enqueued, Pair

REQUIRED = ("campaign_id", "send_id")
MAX_LINE_CHARACTERS = 65_536


class _Unusable(Exception):  # noqa: N818 - it never leaves this file
    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem


class Input:
    """Files of pairs, told by their names (``.csv``, ``.ndjson``, ``.jsonl``); ``-`` is standard input."""

    def __init__(self, names: Sequence[str], *, workspaces: Sequence[str], stdin: BinaryIO, now: float) -> None:
        """Open all files, so that a missing one is told before anything is enqueued. Raises ``UsageError``."""
        self._workspaces = tuple(workspaces)
        self._latest = now + DAY_SECONDS
        self.lines = 0
        self.naive_times = 0
        self._files = [(name, _opened(name, stdin)) for name in names]

    def read(self) -> Iterator[Enqueued | BadLine]:
        """Give what each line holds. Raises ``UsageError`` for a file that is not of its kind at all."""
        for name, file in self._files:
            with file:
                for line, record in _records(name, file):
                    self.lines += 1
                    if isinstance(record, BadLine):
                        yield record
                        continue
                    try:
                        yield self._enqueued(record)
                    except _Unusable as error:
                        yield BadLine(name, line, error.field, error.problem, str(dict(record))[:500])

    def _enqueued(self, record: Mapping[str, object]) -> Enqueued:
        workspace = record.get("workspace") or (self._workspaces[0] if len(self._workspaces) == 1 else None)
        if workspace not in self._workspaces:
            raise _Unusable(
                "workspace", f"{workspace!r} is none of the configured workspaces {', '.join(self._workspaces)}"
            )
        pair = Pair(str(workspace), _id(record, "campaign_id"), _id(record, "send_id"))
        return Enqueued(pair, self._time(record.get("sent_at")))

    def _time(self, given: object) -> float | None:
        if given is None or given == "":
            return None
        if isinstance(given, int | float):
            raise _Unusable("sent_at", "a number is ambiguous; give an ISO 8601 time such as 2026-11-20T08:00:00Z")
        try:
            when = datetime.fromisoformat(str(given))
        except ValueError:
            raise _Unusable("sent_at", f"{given!r} is no ISO 8601 time such as 2026-11-20T08:00:00Z") from None
        if when.tzinfo is None:
            self.naive_times += 1
            when = when.replace(tzinfo=UTC)
        try:
            seconds = when.timestamp()
        except (ValueError, OverflowError):
            raise _Unusable("sent_at", f"{given!r} is out of range") from None
        if seconds > self._latest:
            raise _Unusable("sent_at", f"{given!r} lies in the future")
        return seconds


def _id(record: Mapping[str, object], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise _Unusable(field, "missing" if value is None else "must be text: a number loses its leading zeros")
    if not value:
        raise _Unusable(field, "empty")
    if len(value) > MAX_ID_CHARACTERS or not value.isascii() or "\0" in value:
        raise _Unusable(field, f"must be 1 to {MAX_ID_CHARACTERS} ASCII characters without NUL")
    return value


def _opened(name: str, stdin: BinaryIO) -> TextIO:
    if name != "-" and not name.endswith((".csv", ".ndjson", ".jsonl")):
        raise UsageError(f"{name}: cannot tell what it is; name it .csv, .ndjson or .jsonl")
    try:
        raw = stdin if name == "-" else Path(name).open("rb")  # noqa: SIM115 - read() closes it
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; check the name of the file") from None
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="backslashreplace", newline="")


def _records(name: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | BadLine]]:
    first = file.readline(MAX_LINE_CHARACTERS)
    if name.endswith((".ndjson", ".jsonl")) or (name == "-" and first.lstrip().startswith("{")):
        return _ndjson(name, first, file)
    return _csv(name, first, file)


def _lines(first: str, file: TextIO) -> Iterator[str]:
    """Give lines of bounded length; what is longer comes in pieces, each of which is a bad line."""
    line = first
    while line:
        yield line
        line = file.readline(MAX_LINE_CHARACTERS)


def _ndjson(name: str, first: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | BadLine]]:
    for number, line in enumerate(_lines(first, file), 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, BadLine(name, number, "", f"no JSON: {error}", line[:500])
            continue
        yield number, record if isinstance(record, dict) else BadLine(name, number, "", "no JSON object", line[:500])


def _csv(name: str, first: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | BadLine]]:
    header = [field.strip() for field in next(csv.reader([first]), [])]
    missing = [field for field in REQUIRED if field not in header]
    if missing:
        found = ", ".join(header) or "none"
        raise UsageError(f"{name}: its first line must name the columns {' and '.join(REQUIRED)}; found: {found[:200]}")
    reader = csv.reader(_lines(file.readline(MAX_LINE_CHARACTERS), file))
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num + 1, BadLine(name, reader.line_num + 1, "", f"no CSV: {error}", "")
            continue
        number = reader.line_num + 1
        if not fields:
            continue
        if len(fields) != len(header):
            problem = f"{len(fields)} fields where the header has {len(header)}"
            yield number, BadLine(name, number, "", problem, ",".join(fields)[:500])
        else:
            yield number, {key: value.strip() for key, value in zip(header, fields, strict=True)}


class RejectsFile:
    """Bad lines as NDJSON, in a file that is begun anew by each run, and only made when there is one."""

    def __init__(self, path: Path) -> None:
        """Take the path; a file of an earlier run is removed."""
        self.path = path
        self.count = 0
        path.unlink(missing_ok=True)

    def add(self, bad: BadLine) -> None:
        """Write one bad line."""
        self.count += 1
        line = {"source": bad.source, "line": bad.line, "field": bad.field, "problem": bad.problem, "text": bad.text}
        with self.path.open("ab") as file:
            file.write(orjson.dumps(line) + b"\n")
