"""Reads the input of a command: lists of pairs (CSV, NDJSON, Parquet, standard input) and files of Currents.

A line that contains no valid pair becomes a ``BadLine``, and reading continues. Each list returns each pair once, after
all its rows are read. If several lines report the same send, the earliest time counts, as for the events of Currents.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, BadLine, Pair, SentPair, is_in_object_store
from harvester.place import classify_place
from harvester.sources.currents import CurrentsReader
from harvester.sources.currents_files import list_currents_files
from harvester.sources.fields import ID_FIELDS
from harvester.sources.list_file import read_rows
from harvester.sources.list_options import ListOptions
from harvester.sources.pair_list import PairList, UnconfirmedTime
from harvester.sources.regular_files import check_readable
from harvester.sources.rejects_file import BadLineCollector
from harvester.sources.rows import ListFormat, Row
from harvester.sources.temporary_folder import create_temporary_folder

PAGE_PAIRS = 2000


class Input:
    """Reads the pairs in files: ``.csv``, ``.ndjson``, ``.jsonl``, ``.parquet``, or ``-`` for standard input.

    A folder and an ``.avro`` file contain events of Currents. They are all read together, after the lists.

    ``lines`` counts lines and events. ``skipped`` counts valid rows and events without a pair, by cause.
    ``naive_times`` counts times without a zone. ``notes`` are sentences about the lists, for the user.

    ``unconfirmed_pair`` is a pair whose time seems to be in the future while the current time is not confirmed. While
    it is set, ``read_pages`` yields a page, so that the caller can confirm the time before the pair is checked.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        workspaces: Collection[str],
        stdin: BinaryIO,
        now: float,
        confirmed: bool = True,
        options: ListOptions | None = None,
    ) -> None:
        """Check all files, so that a missing file is reported before a pair is enqueued. Raises ``UsageError``."""
        self._workspaces = dict.fromkeys(workspaces)
        self._options = options or ListOptions()
        self.set_time(now)
        self._confirmed = confirmed
        self.unconfirmed_pair: Pair | None = None
        self.lines = 0
        self.naive_times = 0
        self.skipped: Counter[str] = Counter()
        self.notes: list[str] = []
        for name in names:
            classify_place(name, "a list of pairs", buckets=True, pipe=True)
        is_currents = {name: name != "-" and list_currents_files(name) is not None for name in names}
        self._currents_places = [name for name in names if is_currents[name]]
        self._list_names = [name for name in names if not is_currents[name]]
        self._stdin = stdin
        for name in self._list_names:
            _check_list(name)
        if self._currents_places and len(self._workspaces) != 1:
            place = self._currents_places[0]
            raise UsageError(f"{place}: files of Currents name no workspace; enqueue with --workspace NAME, then run")

    def set_time(self, now: float) -> None:
        """Set the confirmed current time. It applies to everything that is read afterwards."""
        self._now, self._latest, self._confirmed = now, now + DAY_SECONDS, True

    def read(self) -> Iterator[SentPair | BadLine | None]:
        """Yield bad lines immediately, and the pairs of each list at its end. A None means that reading continues.

        Raises ``UsageError`` if a file cannot be read, and ``StorageError`` if the disk has no space to sort a long
        list.
        """
        for name in self._list_names:
            yield from self._read_list(name)
        if self._currents_places:
            yield from self._read_currents()

    def _read_list(self, name: str) -> Iterator[SentPair | BadLine | None]:
        with PairList(name, workspaces=self._workspaces, time_format=self._options.time_format) as pairs:
            number = 0
            for number, row in enumerate(self._read_rows(name), 1):
                self.lines += row.lines
                try:
                    bad = self._add_row(row, pairs)
                except UnconfirmedTime as error:
                    self.unconfirmed_pair = error.pair
                    yield None  # the caller may confirm the time now
                    self.unconfirmed_pair, self._confirmed = None, True
                    bad = self._add_row(row, pairs)
                if bad is not None:
                    yield bad
                if number % PAGE_PAIRS == 0:
                    yield None
            yield from pairs.list_pairs(now=self._now)
        self.skipped += pairs.skipped
        self.naive_times += pairs.naive_times
        self.notes += pairs.list_notes(rows=number)

    def _add_row(self, row: Row | BadLine, pairs: PairList) -> BadLine | None:
        if isinstance(row, BadLine):
            return row
        return pairs.add(row, latest=self._latest, confirmed=self._confirmed)

    def _read_currents(self) -> Iterator[SentPair | BadLine | None]:
        files = (file for place in self._currents_places for file in list_currents_files(place) or ())
        (workspace,) = self._workspaces
        currents = CurrentsReader(files, workspace=workspace, now=self._now)
        lines_before, skipped_before, sends = self.lines, self.skipped.copy(), 0
        for each in currents.read():
            sends += isinstance(each, SentPair)
            self.lines, self.skipped = lines_before + currents.events, skipped_before + currents.skipped
            yield each
        places = ", ".join(self._currents_places)
        if currents.only_other_types:
            raise UsageError(
                f"{places}: no file contains send events, only other types; "
                "name the folder that contains event_type=users.messages.*.Send"
            )
        if not currents.events and not currents.broken:
            self.notes.append(f"{places} contains no events")
        elif not sends and currents.skipped:
            self.notes.append(f"{places}: no event has a {' and a '.join(ID_FIELDS)}")

    def read_pages(self, bad_lines: BadLineCollector) -> Iterator[list[SentPair]]:
        """Yield pairs in pages, and add bad lines to ``bad_lines``. An empty page means that reading continues."""
        page: list[SentPair] = []
        for each in self.read():
            if isinstance(each, BadLine):
                bad_lines.add(each)
                continue
            if each is not None:
                page.append(each)
            if each is None or len(page) == PAGE_PAIRS:
                yield page
                page = []
        yield page

    def _read_rows(self, name: str) -> Iterator[Row | BadLine]:
        found = ListFormat()
        try:
            if name == "-":
                yield from read_rows(name, self._stdin, None, self._options, found)
                return
            with _open_locally(name) as path, path.open("rb") as file:
                yield from read_rows(name, file, path, self._options, found)
        except OSError as error:  # the file was removed, or its disk failed
            raise UsageError(f"{name}: {error.strerror or error}; check the file") from None


def _check_list(name: str) -> None:
    """Raise ``UsageError`` unless ``name`` is a readable list."""
    if name == "-":
        return
    try:
        if not is_in_object_store(name):
            check_readable(Path(name), allow_pipe=True)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; check the name of the file or folder") from None


@contextmanager
def _open_locally(name: str) -> Iterator[Path]:
    """Yield a local path. An object of a store is copied to a temporary folder, which is deleted at the end."""
    if not is_in_object_store(name):
        yield Path(name)
        return
    from harvester.storage.object_store import download_object  # noqa: PLC0415 - imported only if needed, because it is slow to import

    with create_temporary_folder() as folder:
        yield download_object(name, folder)
