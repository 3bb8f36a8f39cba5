"""Pairs from CSV, NDJSON and Parquet files and from standard input, streamed; those of Currents through its own file.

A line that names no pair becomes a ``BadLine``; the rest goes on. Ids are opaque: any ASCII text of 1 to 64
characters without NUL (which no database keeps as text), taken as it is but for blanks around a CSV field.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

import orjson

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, BadLine, Enqueued, Pair, in_store
from harvester.place import kind_of
from harvester.private_files import append_private
from harvester.sources.currents import Currents, files_of
from harvester.sources.fields import COLUMNS, OF_LISTS, REQUIRED, InFuture, Unusable, pair_in, time_in
from harvester.sources.temporary import temporary_folder
from harvester.tables import parquet_rows

MAX_LINE_CHARACTERS = 65_536
PAGE_PAIRS = 2000


class Rejects(Protocol):
    """Who is told of bad lines."""

    def add(self, bad: BadLine) -> None:
        """Take one."""
        ...


class Input:
    """Where pairs are listed, told by name: ``.csv``, ``.ndjson``, ``.jsonl``, ``.parquet``, or ``-`` for stdin.

    A folder, or a file named ``.avro``, is of Currents; all of these are read as one, after the others. ``lines``
    counts lines and events, ``skipped`` what a source passes over since it names no pair by right, by cause.

    ``in_question`` is a pair whose send lies in the future by a time that is not confirmed. It is set when the page
    before it is given, so that the reader can confirm the time before that line is judged.
    """

    def __init__(
        self, names: Sequence[str], *, workspaces: Sequence[str], stdin: BinaryIO, now: float, confirmed: bool = True
    ) -> None:
        """Look at all files, so that a missing one is told before anything is enqueued. Raises ``UsageError``."""
        self._workspaces = tuple(workspaces)
        self.time_is(now)
        self._confirmed = confirmed
        self.in_question: Pair | None = None
        self.lines = 0
        self.naive_times = 0
        self.skipped: Counter[str] = Counter()
        for name in names:
            kind_of(name, "a list of pairs", buckets=True, pipe=True)
        of_currents = {name: name != "-" and files_of(name) is not None for name in names}
        self._currents_names = [name for name in names if of_currents[name]]
        self._names = [name for name in names if not of_currents[name]]
        self._stdin = stdin
        for name in self._names:
            _check(name)
        if self._currents_names and len(self._workspaces) != 1:
            name = self._currents_names[0]
            raise UsageError(f"{name}: Currents names no workspace; enqueue it with --workspace NAME, then run")

    def time_is(self, now: float) -> None:
        """Judge what follows by this time, and ask no more whether it is confirmed."""
        self._now, self._latest, self._confirmed = now, now + DAY_SECONDS, True

    def read(self) -> Iterator[Enqueued | BadLine | None]:
        """Give what each line holds; a None now and then where much is read before a pair is known.

        Raises ``UsageError`` for a file that is not of its kind at all.
        """
        for name in self._names:
            for line, record in self._records(name):
                self.lines += 1
                if isinstance(record, BadLine):
                    yield record
                    continue
                told = self._told(name, line, record)
                if told is None:
                    yield None  # whoever reads may confirm the time now
                    self.in_question, self._confirmed = None, True
                    told = self._told(name, line, record)
                yield told
        if self._currents_names:
            yield from self._currents()

    def _currents(self) -> Iterator[Enqueued | BadLine | None]:
        files = (file for name in self._currents_names for file in files_of(name) or ())
        currents, before = Currents(files, workspace=self._workspaces[0], now=self._now), self.lines
        for each in currents.read():
            self.lines, self.skipped = before + currents.events, currents.skipped
            yield each

    def pages(self, rejects: Rejects) -> Iterator[list[Enqueued]]:
        """Give the pairs some thousand at a time, and bad lines to the rejects. An empty page: nothing yet."""
        page: list[Enqueued] = []
        for each in self.read():
            if isinstance(each, BadLine):
                rejects.add(each)
                continue
            if each is not None:
                page.append(each)
            if each is None or len(page) == PAGE_PAIRS:
                yield page
                page = []
        yield page

    def _records(self, name: str) -> Iterator[tuple[int, Mapping[str, object] | BadLine]]:
        with _local(name) as path:
            if name.endswith(".parquet"):
                yield from _parquet(name, path)
                return
            raw = self._stdin if name == "-" else path.open("rb")
            # Bytes that are no UTF-8 survive as surrogates, which no id and no JSON may hold.
            with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield from _records(name, file)

    def _told(self, name: str, line: int, record: Mapping[str, object]) -> Enqueued | BadLine | None:
        """Give what a line holds; None where only a confirmed time can say."""
        try:
            return self._enqueued(record)
        except Unusable as error:
            if isinstance(error, InFuture) and not self._confirmed:
                self.in_question = pair_in(record, self._workspaces)
                return None
            return BadLine(name, line, error.field, error.problem, _as_json(record))

    def _enqueued(self, record: Mapping[str, object]) -> Enqueued:
        pair = pair_in(record, self._workspaces)
        sent_at, naive = time_in(record, "sent_at", latest=self._latest)
        self.naive_times += naive
        return Enqueued(pair, sent_at)


def _check(name: str) -> None:
    """Raise ``UsageError`` unless a name is that of a file we can read."""
    if name == "-":
        return
    try:
        if not in_store(name):
            Path(name).open("rb").close()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; check the name of the file or folder") from None
    if not name.endswith(OF_LISTS):
        raise UsageError(
            f"{name}: cannot tell what it is; name it .csv, .ndjson, .jsonl, .parquet or .avro, or a folder of Currents"
        )


@contextmanager
def _local(name: str) -> Iterator[Path]:
    """Give a file on this disk: an object of a store is copied for as long as it is read."""
    if not in_store(name):
        yield Path(name)
        return
    from harvester.stores import fetched  # noqa: PLC0415 - only those who use a store wait for its library

    with temporary_folder() as folder:
        yield fetched(name, folder)


def _records(name: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | BadLine]]:
    first = file.readline(MAX_LINE_CHARACTERS)
    if name.endswith((".ndjson", ".jsonl")) or (name == "-" and first.lstrip().startswith("{")):
        return _ndjson(name, first, file)
    return _csv(name, first, file)


def _parquet(name: str, path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Give the rows of a Parquet file; its times come as times, and are written out for the one that reads text."""
    for number, row in enumerate(parquet_rows(path, COLUMNS), 1):
        missing = [field for field in REQUIRED if field not in row]
        if missing:
            raise UsageError(f"{name}: has no column {' and '.join(missing)}; it needs {' and '.join(REQUIRED)}")
        sent_at = row.get("sent_at")
        yield number, row | {"sent_at": sent_at.isoformat()} if isinstance(sent_at, date) else row


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
        began = reader.line_num + 2
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"no CSV: {error}; is there a quote that does not end? it takes in all up to line {{}}"
            yield began, BadLine(name, began, "", problem.format(reader.line_num + 1), "")
            continue
        number = reader.line_num + 1
        if not fields:
            continue
        if len(fields) != len(header):
            problem = f"{len(fields)} fields where the header has {len(header)}"
            yield number, BadLine(name, number, "", problem, ",".join(fields)[:500])
        else:
            yield number, {key: value.strip() for key, value in zip(header, fields, strict=True)}


def _as_json(record: Mapping[str, object]) -> str:
    """Write a record as its line may have been, cut where it is long; one nested too deeply is left out.

    By the standard library: bytes that were no UTF-8 stand as surrogates here, which orjson refuses.
    """
    try:
        return json.dumps(dict(record), ensure_ascii=False, default=str)[:500]
    except RecursionError:
        return ""


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
        source, problem, text = (
            each.encode("utf-8", "backslashreplace").decode() for each in (bad.source, bad.problem, bad.text)
        )
        line = {"source": source, "line": bad.line, "field": bad.field, "problem": problem, "text": text}
        with append_private(self.path) as file:
            file.write(orjson.dumps(line) + b"\n")
