"""Lists of pairs in Parquet, and the first and last times of sends among any number of events."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harvester.errors import StorageError, UsageError
from harvester.tables.sql import bound, quoted

_SEND_TIMES_AT_ONCE = 10_000


def parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Give the rows of a Parquet file, with those of the wanted columns that it has, streamed.

    Raises ``UsageError`` when the file is no Parquet.
    """
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    with duckdb.connect() as connection:
        try:
            connection.execute("SET threads = 1")
            schema = connection.execute("SELECT * FROM read_parquet(?) LIMIT 0", [str(path)]).description or []
            names = [column[0] for column in schema if column[0] in wanted]
            listed = ", ".join(quoted(name) for name in names) or "1"
            rows = connection.execute(f"SELECT {listed} FROM read_parquet(?)", [str(path)])  # noqa: S608 - quoted
            while page := rows.fetchmany(2048):
                for row in page:
                    yield dict(zip(names, row, strict=False))
        except (duckdb.Error, RuntimeError) as error:  # the latter: the name of a column is no text
            raise UsageError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


class SendTimes:
    """The first and the last time of each send among any number of events, in bounded memory.

    Some thousand sends are held here; the others are in DuckDB, which puts on disk what its own limit does not hold.
    Use it as a context manager: what it put on disk is gone afterwards.
    """

    def __init__(self, *, memory_limit_mb: int = 256) -> None:
        """Begin without a send. Raises ``StorageError`` where there is no folder for a while."""
        import duckdb  # noqa: PLC0415 - as above

        self._held: dict[tuple[str, str], tuple[int, int]] = {}
        self._errors = duckdb.Error
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="harvester-")
        except OSError as error:
            raise StorageError(f"no folder to sort sends in: {error.strerror}; let TMPDIR name one") from None
        self._connection = duckdb.connect()
        bound(self._connection, memory_limit_mb, Path(self._folder.name))
        self._connection.execute("CREATE TABLE held (campaign_id TEXT, send_id TEXT, first BIGINT, last BIGINT)")

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of memory and disk."""
        self._connection.close()
        self._folder.cleanup()

    def add(self, campaign_id: str, send_id: str, seconds: int) -> None:
        """Count an event of a send, by its time. Raises ``StorageError`` where the disk is full."""
        send = (campaign_id, send_id)
        first, last = self._held.get(send, (seconds, seconds))
        self._held[send] = (min(first, seconds), max(last, seconds))
        if len(self._held) >= _SEND_TIMES_AT_ONCE:
            self._put_away()

    def _put_away(self) -> None:
        if not self._held:
            return
        rows = [(*send, *times) for send, times in self._held.items()]
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._held.clear()
        try:
            self._connection.execute("INSERT INTO held SELECT unnest(?), unnest(?), unnest(?), unnest(?)", columns)
        except self._errors as error:
            raise self._full(error) from None

    def each(self) -> Iterator[tuple[str, str, int, int]]:
        """Give ``(campaign_id, send_id, first, last)`` of each send, once, oldest first. Raises ``StorageError``."""
        self._put_away()
        try:
            rows = self._connection.execute(
                "SELECT campaign_id, send_id, min(first), max(last) FROM held GROUP BY ALL ORDER BY 3, 1, 2"
            )
            while page := rows.fetchmany(2048):
                yield from page
        except self._errors as error:
            raise self._full(error) from None

    def _full(self, error: Exception) -> StorageError:
        return StorageError(
            f"cannot sort sends in {self._folder.name}: {str(error).splitlines()[0]}; let TMPDIR name a roomier folder"
        )
