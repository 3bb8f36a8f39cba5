"""Pairs from CSV, NDJSON and Parquet files and from standard input; those of Currents through its own file.

A line that names no pair becomes a ``BadLine``, and the rest is read. A list gives each pair once, when all of it has
been read: of several lines of one send the earliest time counts, as of the events of Currents.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, BadLine, Enqueued, Pair, in_store
from harvester.place import kind_of
from harvester.sources.currents import Currents, files_of
from harvester.sources.fields import OF_LISTS, REQUIRED
from harvester.sources.lists import ListOfPairs, TimeInQuestion
from harvester.sources.rejects import Rejects
from harvester.sources.rows import Row, csv_rows, ndjson_rows, parquet_rows
from harvester.sources.special_files import open_once
from harvester.sources.temporary import temporary_folder

PAGE_PAIRS = 2000
_FIRST_CHARACTERS = 65_536


class Input:
    """Where pairs are listed, told by name: ``.csv``, ``.ndjson``, ``.jsonl``, ``.parquet``, or ``-`` for stdin.

    A folder, or a file named ``.avro``, is of Currents; all of these are read as one, after the others. ``lines``
    counts lines and events, ``skipped`` what a source passes over since it names no pair by right, by cause, and
    ``notes`` says in sentences what a person should know of the lists that were read.

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
        self.notes: list[str] = []
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
        """Give bad lines as they are met, and each list's pairs at its end; a None now and then in between.

        Raises ``UsageError`` for a file that is not of its kind at all, ``StorageError`` where the disk cannot hold a
        long list for a while.
        """
        for name in self._names:
            yield from self._list(name)
        if self._currents_names:
            yield from self._currents()

    def _list(self, name: str) -> Iterator[Enqueued | BadLine | None]:
        with ListOfPairs(name, workspaces=self._workspaces) as pairs:
            number = 0
            for number, row in enumerate(self._readable_rows(name), 1):
                self.lines += row.lines
                try:
                    bad = self._added(row, pairs)
                except TimeInQuestion as question:
                    self.in_question = question.pair
                    yield None  # whoever reads may confirm the time now
                    self.in_question, self._confirmed = None, True
                    bad = self._added(row, pairs)
                if bad is not None:
                    yield bad
                if number % PAGE_PAIRS == 0:
                    yield None
            yield from pairs.each(now=self._now)
        self.skipped += pairs.skipped
        self.naive_times += pairs.naive_times
        self.notes += pairs.notes(rows=number)

    def _added(self, row: Row | BadLine, pairs: ListOfPairs) -> BadLine | None:
        if isinstance(row, BadLine):
            return row
        return pairs.add(row, latest=self._latest, confirmed=self._confirmed)

    def _currents(self) -> Iterator[Enqueued | BadLine | None]:
        files = (file for name in self._currents_names for file in files_of(name) or ())
        currents, before = Currents(files, workspace=self._workspaces[0], now=self._now), self.lines
        skipped, given = self.skipped.copy(), 0
        for each in currents.read():
            given += isinstance(each, Enqueued)
            self.lines, self.skipped = before + currents.events, skipped + currents.skipped
            yield each
        place = ", ".join(self._currents_names)
        if currents.only_other_types:
            raise UsageError(
                f"{place}: no file contains send events, only other types; "
                "name the folder that contains event_type=users.messages.*.Send"
            )
        if not currents.events and not currents.broken:
            self.notes.append(f"{place} contains no events")
        elif not given and currents.skipped:
            self.notes.append(f"{place}: no event names a send that has a {' and a '.join(REQUIRED)}")

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

    def _readable_rows(self, name: str) -> Iterator[Row | BadLine]:
        try:
            yield from self._rows(name)
        except OSError as error:  # it went away, or its disk fails
            raise UsageError(f"{name}: {error.strerror or error}; check the file") from None

    def _rows(self, name: str) -> Iterator[Row | BadLine]:
        with _local(name) as path:
            if name.endswith(".parquet"):
                yield from parquet_rows(name, path)
                return
            raw = self._stdin if name == "-" else path.open("rb")
            # Bytes that are no UTF-8 survive as surrogates, which no id and no JSON may hold.
            with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                first = file.readline(_FIRST_CHARACTERS)
                text = _Peeked(first, file)
                if name.endswith((".ndjson", ".jsonl")) or (name == "-" and first.lstrip().startswith("{")):
                    yield from ndjson_rows(name, text)
                else:
                    yield from csv_rows(name, text)


class _Peeked:
    """A text whose first line was read already; it is returned again."""

    def __init__(self, first: str, file: io.TextIOWrapper) -> None:
        self._first = first
        self._file = file

    def readline(self, characters: int) -> str:
        first, self._first = self._first, ""
        return first or self._file.readline(characters)


def _check(name: str) -> None:
    """Raise ``UsageError`` unless a name is that of a file we can read."""
    if name == "-":
        return
    try:
        if not in_store(name):
            open_once(Path(name), pipe=not name.endswith(".parquet"))
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
    from harvester.storage.object_store import fetch_object  # noqa: PLC0415 - only those who use a store wait for its library

    with temporary_folder() as folder:
        yield fetch_object(name, folder)
