"""Writes the latest view: to one file or standard output, to a file for each partition, or to a table of a database."""

import secrets
import shutil
import sys
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from harvester.datasets.sql import quote_name, quote_text
from harvester.errors import UsageError
from harvester.private_files import make_private_file

PARTITION_COLUMNS = ("workspace", "date", "level", "channel")
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""The folder of rows without a value, as Hive names it."""

_COPY_OPTIONS = {
    "ndjson": "(FORMAT json)",
    "csv": "(FORMAT csv, HEADER)",
    "parquet": "(FORMAT parquet, COMPRESSION zstd)",
}


class ViewFiles(Protocol):
    """Where a view goes. ``write`` may be discarded; ``publish`` makes the files visible under their names."""

    def write(self, connection: Any, query: str) -> int:
        """Write the rows of a query, and return their number. Raises ``duckdb.Error``."""

    def publish(self) -> None:
        """Give the files their names, or print them."""

    def discard(self) -> None:
        """Delete what was written."""


def select_changed(query: str, since: str | None, partition_by: str | None) -> str:
    """Return the query for the rows captured since a day, or for the partitions that have such a row."""
    if since is None:
        return query
    day = quote_text(since)
    if partition_by is None:
        return f"SELECT * FROM ({query}) WHERE captured_at >= {day}"  # noqa: S608 - quoted
    newest = f"max(captured_at) OVER (PARTITION BY {quote_name(partition_by)})"
    return f"SELECT * FROM ({query}) QUALIFY {newest} >= {day}"  # noqa: S608 - quoted


class SingleFile:
    """One file, which replaces an older one at the end, or standard output."""

    def __init__(self, path: Path | None, file_format: str, temp_directory: Path) -> None:
        """Check that the file can be written. Raises ``UsageError``."""
        self._path, self._format = path, file_format
        self._temporary = temp_directory / "latest" if path is None else _make_temporary_path(path)
        _check_writable(self._temporary)

    def write(self, connection: Any, query: str) -> int:
        """Write the rows to a temporary file."""
        return _copy_rows(connection, query, self._temporary, self._format)

    def publish(self) -> None:
        """Rename the file, or copy it to standard output."""
        if self._path is None:
            with self._temporary.open("rb") as view:
                shutil.copyfileobj(view, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            self._temporary.replace(self._path)

    def discard(self) -> None:
        """Delete the temporary file."""
        self._temporary.unlink(missing_ok=True)


class PartitionFiles:
    """A folder such as ``date=2026-11-20`` for each value of a column, each with one file without this column."""

    def __init__(self, folder: Path, file_format: str, column: str) -> None:
        """Check that the folder can be written. Raises ``UsageError``."""
        self._folder, self._format, self._column = folder, file_format, column
        self._written: list[tuple[Path, Path]] = []
        if file_format == "duckdb":
            raise UsageError("--partition-by needs files; use --format parquet, ndjson or csv")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write to the folder {folder}: {error.strerror}") from None
        _check_writable(_make_temporary_path(folder / "latest"))

    def write(self, connection: Any, query: str) -> int:
        """Write each partition to a temporary file in its folder. One name for each, so that nothing old remains."""
        column = quote_name(self._column)
        connection.execute(f"CREATE TEMP TABLE partitioned AS {query} ORDER BY {column}")
        values = connection.execute(f"SELECT DISTINCT {column} FROM partitioned").fetchall()  # noqa: S608 - quoted
        count = 0
        for (value,) in values:
            folder = self._folder / f"{self._column}={NULL_PARTITION if value is None else quote(value, safe='')}"
            folder.mkdir(exist_ok=True)
            path = folder / f"latest.{self._format}"
            temporary = _make_temporary_path(path)
            self._written.append((temporary, path))
            test = f"{column} IS NULL" if value is None else f"{column} = {quote_text(value)}"
            rows = f"SELECT * EXCLUDE ({column}) FROM partitioned WHERE {test}"  # noqa: S608 - quoted
            count += _copy_rows(connection, rows, temporary, self._format)
        return count

    def publish(self) -> None:
        """Rename the files, one after the other."""
        for temporary, path in self._written:
            temporary.replace(path)

    def discard(self) -> None:
        """Delete the temporary files."""
        for temporary, _ in self._written:
            temporary.unlink(missing_ok=True)


class DatabaseTable:
    """A table in a DuckDB file, which is replaced in one transaction. Other tables stay as they are."""

    def __init__(self, path: Path, table: str) -> None:
        """Check that the folder can be written. Raises ``UsageError``."""
        self._path, self._table = path, table
        _check_writable(_make_temporary_path(path))

    def write(self, connection: Any, query: str) -> int:
        """Replace the table. Raises ``UsageError`` if the file is not a database or is in use."""
        import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

        try:
            connection.execute(f"ATTACH {quote_text(str(self._path))} AS exported")
        except duckdb.Error as error:
            raise UsageError(f"cannot write to {self._path}: {str(error).splitlines()[0]}") from None
        table = f"exported.main.{quote_name(self._table)}"
        connection.execute(f"CREATE OR REPLACE TABLE {table} AS {query}")
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - quoted
        connection.execute("DETACH exported")
        return int(count)

    def publish(self) -> None:
        """Do nothing: the transaction has made the table visible."""

    def discard(self) -> None:
        """Do nothing: a failed transaction leaves nothing."""


def _copy_rows(connection: Any, query: str, path: Path, file_format: str) -> int:
    copy = f"COPY ({query}) TO {quote_text(str(path))} {_COPY_OPTIONS[file_format]}"
    written = connection.execute(copy).fetchone()
    return int(written[0]) if written else 0


def _make_temporary_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.{secrets.token_hex(4)}.making")


def _check_writable(path: Path) -> None:
    """Raise ``UsageError`` if the folder is not writable, or if the name exists, even as a link."""
    try:
        make_private_file(path)
        path.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {path.parent}: {error.strerror}") from None
