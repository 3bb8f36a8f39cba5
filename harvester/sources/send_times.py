"""The first and the last time of each send among any number of lines or events, in bounded memory.

A list may hold one line for each user, and Currents holds one event for each: what counts is each send, once.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from harvester.errors import StorageError
from harvester.model import RETENTION_SECONDS, Enqueued, Pair

SENDS_IN_MEMORY = 10_000
_CACHE_KIB = 16_384
_TABLE = "CREATE TABLE seen (workspace TEXT, campaign_id TEXT, send_id TEXT, first REAL, last REAL)"


class SendTimes:
    """Takes sends with their times, known or not, and gives each send once.

    ``SENDS_IN_MEMORY`` sends are held here. The others are in an SQLite file, which sorts on disk. Use it as a context
    manager: the file is deleted afterwards.
    """

    def __init__(self) -> None:
        """Begin without a send; nothing is created before it is needed."""
        self._held: dict[Pair, tuple[float | None, float | None]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free memory and disk."""
        if self._connection is not None:
            self._connection.close()
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, pair: Pair, seconds: float | None) -> None:
        """Count a line or an event of a send, by its time. Raises ``StorageError`` where the disk is full."""
        known = self._held.get(pair)
        if known is None:
            self._held[pair] = (seconds, seconds)
            if len(self._held) >= SENDS_IN_MEMORY:
                self._put_away()
        elif seconds is not None:
            first, last = known
            if first is None or last is None:
                self._held[pair] = (seconds, seconds)
            elif not first <= seconds <= last:
                self._held[pair] = (min(first, seconds), max(last, seconds))

    def each(self) -> Iterator[tuple[Pair, float | None, float | None]]:
        """Give each send once with its first and last time, in no promised order. Raises ``StorageError``."""
        if self._connection is None:
            yield from ((pair, first, last) for pair, (first, last) in self._held.items())
            return
        self._put_away()
        try:
            rows = self._connection.execute(
                "SELECT workspace, campaign_id, send_id, min(first), max(last) FROM seen GROUP BY 1, 2, 3"
            )
            while page := rows.fetchmany(2048):
                yield from ((Pair(*row[:3]), row[3], row[4]) for row in page)
        except sqlite3.Error as error:
            raise _full(error) from None

    def _put_away(self) -> None:
        rows = [(*pair, *times) for pair, times in self._held.items()]
        self._held.clear()
        try:
            if self._connection is None:
                self._connection = self._opened()
            with self._connection:
                self._connection.executemany("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise _full(error) from None

    def _opened(self) -> sqlite3.Connection:
        self._folder = tempfile.TemporaryDirectory(prefix="harvester-")
        # A list in a bucket is read on whichever thread is free, one at a time.
        connection = sqlite3.connect(Path(self._folder.name, "sends.db"), check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(_TABLE)
        return connection


def send_time(first: float | None, last: float | None, *, now: float) -> float | None:
    """Choose the time from which the deadline counts: the earliest, so that no deadline is met late.

    Which send starts Braze's clock when a send id is used again is undocumented. So once the earliest is beyond
    retention the latest counts: that may cost a request in vain, but no send that can be read expires unasked.
    """
    return first if first is None or now - first < RETENTION_SECONDS else last


def earliest_of_each(arrivals: list[Enqueued], *, now: float) -> list[Enqueued]:
    """Give each send of a short list once, by the rule of longer ones."""
    with SendTimes() as times:
        for each in arrivals:
            times.add(each.pair, each.sent_at)
        return [Enqueued(pair, send_time(first, last, now=now)) for pair, first, last in times.each()]


def _full(error: Exception) -> StorageError:
    return StorageError(
        f"no space to sort a long list: {error}; free space for temporary files, or set TMPDIR to a larger volume"
    )
