"""Reads the input of a command: lists of pairs (files, folders, standard input) and files of Currents.

A line that contains no valid pair becomes a ``BadLine``, and reading continues. Each list returns each pair once, after
all its rows are read. If several lines report the same send, the earliest time counts, as for the events of Currents.

A long list can be enqueued while it is read (``EnqueueNew``). Then the list returns at its end only the pairs that
remain: those with several rows, those of a page with known pairs, and those of the last page.
"""

from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, BadLine, Pair, SentPair
from harvester.place import classify_place
from harvester.sources.currents import CurrentsReader, contains_events
from harvester.sources.fields import ID_FIELDS
from harvester.sources.lists.kinds import Kind
from harvester.sources.lists.list_file import read_rows
from harvester.sources.lists.list_options import ListOptions
from harvester.sources.lists.listed_files import FilesOfPlace, ListedFile, Place, StandardInput
from harvester.sources.lists.pair_list import EnqueueNew, PairList, UnconfirmedTime
from harvester.sources.lists.rows import ListFormat, Row
from harvester.sources.rejects_file import BadLineCollector
from harvester.sources.temporary_folder import create_temporary_folder

PAGE_PAIRS = 2000
REPEATED_HEADERS = "rows that repeat the header"
_MAX_FORMATS = 3
"""How many different formats of a place's files are described."""


class Input:
    """Reads the pairs in files, in folders or buckets of files of one kind, or in standard input (``-``).

    Files of Currents are all read together, after the lists.

    ``lines`` counts lines and events, and ``pairs`` the pairs that ``read_pages`` yielded. ``skipped`` counts valid
    rows and events without a pair, by cause. ``naive_times`` counts times without a zone. ``formats`` describe what was
    read, and ``notes`` what is doubtful.

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
        patterns: bool = True,
    ) -> None:
        """Check all files, so that a missing file is reported before a pair is enqueued. Raises ``UsageError``."""
        self._workspaces = dict.fromkeys(workspaces)
        self._options = options or ListOptions()
        self.set_time(now)
        self._confirmed = confirmed
        self.unconfirmed_pair: Pair | None = None
        self.lines = 0
        self.pairs = 0
        self.naive_times = 0
        self.skipped: Counter[str] = Counter()
        self.notes: list[str] = []
        self.formats: list[str] = []
        for name in names:
            classify_place(name, "a list of pairs", buckets=True, pipe=True)
        self._places = [
            StandardInput(stdin) if name == "-" else FilesOfPlace(name, patterns=patterns) for name in names
        ]
        self._file: BinaryIO | None = None
        self._file_bytes = 0

    @property
    def share_read(self) -> float | None:
        """How much of the only file is read, 0 to 1; None if that is unknown, as for standard input and folders."""
        if self._file is None or not self._file_bytes:
            return None
        try:
            return self._file.tell() / self._file_bytes
        except ValueError:  # another thread has closed it
            return None

    def set_time(self, now: float) -> None:
        """Set the confirmed current time. It applies to everything that is read afterwards."""
        self._now, self._latest, self._confirmed = now, now + DAY_SECONDS, True

    def read(self, enqueue_new: EnqueueNew | None = None) -> Iterator[SentPair | BadLine | None]:
        """Yield bad lines immediately, and the pairs of each list at its end. A None means that reading continues.

        ``enqueue_new`` enqueues pairs of the last list while it is read, if this list is a single file. By then, the
        headers of all files have been checked.

        Raises ``UsageError`` if a file cannot be read, and ``StorageError`` if the disk has no space to sort a long
        list.
        """
        currents = [place for place in self._places if isinstance(place, FilesOfPlace) and _contains_currents(place)]
        if currents and len(self._workspaces) != 1:
            name = currents[0].place
            raise UsageError(f"{name}: files of Currents name no workspace; enqueue with --workspace NAME, then run")
        for place in self._places:
            if place not in currents:
                is_last = place is self._places[-1] and place.is_single and not currents
                yield from self._read_list(place, enqueue_new if is_last else None)
        if currents:
            yield from self._read_currents(currents)

    def _read_list(self, place: Place, enqueue_new: EnqueueNew | None) -> Iterator[SentPair | BadLine | None]:
        rows, formats = 0, dict[str, None]()
        pairs = PairList(
            place.place,
            workspaces=self._workspaces,
            time_format=self._options.time_format,
            enqueue_new=enqueue_new,
        )
        with pairs:
            for file in place:
                found = ListFormat()
                for turn, row in enumerate(self._read_rows(file, found), 1):
                    if turn % PAGE_PAIRS == 0:
                        pairs.enqueue_page()
                        yield None
                    if row is None:
                        continue
                    rows += 1
                    self.lines += row.lines
                    try:
                        bad = self._add_row(row, file, pairs)
                    except UnconfirmedTime as error:
                        self.unconfirmed_pair = error.pair
                        yield None  # the caller may confirm the time now
                        self.unconfirmed_pair, self._confirmed = None, True
                        bad = self._add_row(row, file, pairs)
                    if bad is not None:
                        yield bad
                if found.repeated_headers:
                    self.skipped[REPEATED_HEADERS] += found.repeated_headers
                if len(formats) < _MAX_FORMATS:
                    formats.setdefault(found.describe())
            yield from _skip_enqueued(pairs.list_pairs(now=self._now))
        self.skipped += pairs.skipped
        self.naive_times += pairs.naive_times
        self.notes += pairs.list_notes(rows=rows)
        self.formats.append(pairs.describe(formats))

    def _add_row(self, row: Row | BadLine, file: ListedFile, pairs: PairList) -> BadLine | None:
        if isinstance(row, BadLine):
            return row
        return pairs.add(row, file=file.name, latest=self._latest, confirmed=self._confirmed)

    def _read_currents(self, places: Sequence[Place]) -> Iterator[SentPair | BadLine | None]:
        files = (file for place in places for file in place)
        (workspace,) = self._workspaces
        currents = CurrentsReader(files, workspace=workspace, now=self._now)
        lines_before, skipped_before, sends = self.lines, self.skipped.copy(), 0
        for each in currents.read():
            sends += isinstance(each, SentPair)
            self.lines, self.skipped = lines_before + currents.events, skipped_before + currents.skipped
            yield each
        names = ", ".join(each.place for each in places)
        self.formats.append(f"{names}: Currents; files {currents.files}, events {currents.events}, sends {sends}")
        if currents.only_other_types:
            raise UsageError(
                f"{names}: no file contains send events, only other types; "
                "name the folder that contains event_type=users.messages.*.Send"
            )
        if not currents.events and not currents.broken:
            self.notes.append(f"{names} contains no events")
        elif not sends and currents.skipped:
            self.notes.append(f"{names}: no event has a {' and a '.join(ID_FIELDS)}")

    def read_pages(
        self, bad_lines: BadLineCollector, enqueue_new: EnqueueNew | None = None
    ) -> Generator[list[SentPair], None, None]:
        """Yield pairs in pages, and add bad lines to ``bad_lines``. An empty page means that reading continues.

        ``enqueue_new`` enqueues pairs while their list is read: see ``read``.
        """
        page: list[SentPair] = []
        for each in self.read(enqueue_new):
            if isinstance(each, BadLine):
                bad_lines.add(each)
                continue
            if each is not None:
                page.append(each)
            if each is None or len(page) == PAGE_PAIRS:
                self.pairs += len(page)
                yield page
                page = []
        self.pairs += len(page)
        yield page

    def _read_rows(self, file: ListedFile, found: ListFormat) -> Iterator[Row | BadLine | None]:
        try:
            with _copy_if_remote(file) as local, local.open() as content:
                self._track(content, local)
                yield from read_rows(file.name, content, local.path, self._options, found)
        except OSError as error:  # the file was removed, or its disk failed
            raise UsageError(f"{file.name}: {error.strerror or error}; check the file") from None

    def _track(self, content: BinaryIO, file: ListedFile) -> None:
        """Let ``share_read`` follow a file, if it is the only one. DuckDB reads Parquet by its path instead."""
        (place, *others) = self._places
        if not others and isinstance(place, FilesOfPlace) and place.is_single and place.kind is not Kind.PARQUET:
            self._file, self._file_bytes = content, file.path.stat().st_size if file.path else 0


def _skip_enqueued(pairs: Iterator[SentPair | None]) -> Iterator[SentPair | None]:
    """Yield the pairs that are not enqueued yet, and a None now and then for the others."""
    return (pair for turn, pair in enumerate(pairs, 1) if pair is not None or turn % PAGE_PAIRS == 0)


@contextmanager
def _copy_if_remote(file: ListedFile) -> Iterator[ListedFile]:
    """Yield a file on this machine. A file of a bucket is copied to a temporary folder, which is deleted at the end."""
    if file.copy_to is None:
        yield file
        return
    with create_temporary_folder() as folder:
        path = folder / "list"
        file.copy_to(path)
        yield file._replace(open=lambda: path.open("rb"), path=path)


def _contains_currents(place: FilesOfPlace) -> bool:
    return place.kind is Kind.AVRO and contains_events(place.first)
