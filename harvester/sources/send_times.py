"""Finds the first and the last time of each send in any number of lines or events, in bounded memory.

Currents has one event for each user, and a list may have one line for each user. Each send counts once.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from harvester.causes import find_cause
from harvester.errors import StorageError
from harvester.model import RETENTION_SECONDS, Pair, SentPair

SENDS_IN_MEMORY = 10_000
"""The most sends in memory. In a long list, this is also the size of a page."""

_CACHE_KIB = 16_384
_CREATE_TABLE = (
    "CREATE TABLE send_times (workspace TEXT, campaign_id TEXT, send_id TEXT, first REAL, last REAL, page INTEGER)"
)


_SELECT_SENDS = """
SELECT workspace, campaign_id, send_id, min(first), max(last), count(*), min(page) FROM send_times GROUP BY 1, 2, 3
"""


class SendTime(NamedTuple):
    """A send with its first and last time; ``enqueued`` is whether it was enqueued with its only time."""

    pair: Pair
    first: float | None
    last: float | None
    enqueued: bool = False


class SendTimes:
    """Collects sends with their times, and merges the times of the same send.

    Up to ``SENDS_IN_MEMORY`` sends are in memory. The others are in an SQLite file, which sorts them on disk. Use it as
    a context manager, which deletes the file.

    The sends that are written to the file together are a page. The caller may enqueue each page before the next one is
    written: ``take_page`` returns it, and ``mark_enqueued`` records that it was enqueued.
    """

    def __init__(self, *, keep_page: bool = False) -> None:
        """Start without sends. The file is created when it is needed. ``keep_page`` allows ``take_page``."""
        self._keep_page = keep_page
        self._sends: dict[Pair, tuple[float | None, float | None]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None
        self._times_differ = False
        self._page: dict[Pair, tuple[float | None, float | None]] = {}
        self._pages = 0
        self._enqueued_pages: set[int] = set()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the file."""
        if self._connection is not None:
            self._connection.close()
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, pair: Pair, seconds: float | None) -> None:
        """Add a line or an event of a send, with its time if known. Raises ``StorageError`` if the disk is full."""
        known = self._sends.get(pair)
        if known is None:
            self._sends[pair] = (seconds, seconds)
            if len(self._sends) >= SENDS_IN_MEMORY:
                self._spill_to_disk()
        elif seconds is not None:
            first, last = known
            if first is None or last is None:
                self._sends[pair] = (seconds, seconds)
            elif not first <= seconds <= last:
                self._sends[pair] = (min(first, seconds), max(last, seconds))
            else:
                return
            self._times_differ = True

    def take_page(self) -> list[SentPair]:
        """Return the sends of the last page; none if they were returned before.

        It also returns none after a send had several times on one page. Such a list reports events, and only its end
        shows which times count.
        """
        page, self._page = self._page, {}
        return [] if self._times_differ else [SentPair(pair, first) for pair, (first, _) in page.items()]

    def mark_enqueued(self) -> None:
        """Record that all sends of the last page were enqueued."""
        self._enqueued_pages.add(self._pages)

    def list_sends(self) -> Iterator[SendTime]:
        """Yield each send once, in any order. Raises ``StorageError``."""
        if self._connection is None:
            yield from (SendTime(pair, first, last) for pair, (first, last) in self._sends.items())
            return
        self._spill_to_disk()
        try:
            rows = self._connection.execute(_SELECT_SENDS)
            while found := rows.fetchmany(1024):
                for *pair, first, last, count, page in found:
                    yield SendTime(Pair(*pair), first, last, count == 1 and page in self._enqueued_pages)
        except sqlite3.Error as error:
            raise _create_disk_error(error) from None

    def _spill_to_disk(self) -> None:
        self._pages += 1
        rows = [(*pair, *times, self._pages) for pair, times in self._sends.items()]
        if self._keep_page:
            self._page = self._sends.copy()
        self._sends.clear()
        try:
            if self._connection is None:
                self._connection = self._create_database()
            with self._connection:
                self._connection.executemany("INSERT INTO send_times VALUES (?, ?, ?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise _create_disk_error(error) from None

    def _create_database(self) -> sqlite3.Connection:
        self._folder = tempfile.TemporaryDirectory(prefix="harvester-")
        # A list in a bucket is read on several threads, but only on one at a time.
        connection = sqlite3.connect(Path(self._folder.name, "sends.db"), check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(_CREATE_TABLE)
        return connection


def choose_send_time(first: float | None, last: float | None, *, now: float) -> float | None:
    """Return the time from which the deadline counts: the earliest time, so that no deadline is missed.

    Braze does not document which send starts the retention if a send id is used again. So once the earliest time is
    beyond retention, the latest counts. This may cost a useless request, but no readable send expires.
    """
    return first if first is None or now - first < RETENTION_SECONDS else last


def merge_sends(arrivals: list[SentPair], *, now: float) -> list[SentPair]:
    """Merge the pairs of a message, so that each send appears once. Raises ``StorageError``."""
    with SendTimes() as times:
        for each in arrivals:
            times.add(each.pair, each.sent_at)
        return [SentPair(pair, choose_send_time(first, last, now=now)) for pair, first, last, _ in times.list_sends()]


def _create_disk_error(error: OSError | sqlite3.Error) -> StorageError:
    problem = error.strerror if isinstance(error, OSError) else str(error)
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    folder = f"the temporary folder {tempfile.tempdir}" if tempfile.tempdir else "a temporary folder"
    return StorageError(
        f"a long list cannot be sorted in {folder}: {problem}; free space in it, or set TMPDIR to a larger volume",
        cause="disk_full" if full else find_cause(error) or "failed",
    )
