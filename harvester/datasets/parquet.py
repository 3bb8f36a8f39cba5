"""Reads lists of pairs in Parquet, in bounded memory for any file."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harvester.datasets.sql import escape_path, quote_name
from harvester.errors import UsageError

MEMORY_LIMIT_MB = 128
"""The memory limit for a file's pages. A file with a page that needs more, because of huge cells, is refused."""

MAX_FOOTER_BYTES = 1 << 20
"""The size limit of a footer, which takes about 140 times its size in memory."""

TEXT_CHARACTERS = 256
"""Texts are truncated to this length, which is longer than any id."""

_TEXT_TYPES = ("VARCHAR", "JSON", "UUID", "ENUM")
_SMALL_TYPES = re.compile(r'U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|BOOLEAN|DECIMAL.*|DATE|TIME.*|"NULL"')


class ParquetFile:
    """An open Parquet file. ``columns`` are the names of its top-level columns as the file spells them.

    Use it as a context manager. Raises ``UsageError`` if the file is not Parquet, or needs too much memory.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read its footer."""
        import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

        self._path = path
        # The last two occur if a column's name is not UTF-8.
        self._errors = (duckdb.Error, RuntimeError, UnicodeDecodeError)
        self._name = escape_path(path)
        _check_footer(path)
        self._connection = duckdb.connect()
        try:
            self._connection.execute("SET threads = 1")
            self._connection.execute(f"SET memory_limit = '{MEMORY_LIMIT_MB}MB'")
            self._connection.execute("SET temp_directory = ''")
            self.columns = self._list_top_level_columns()
        except self._errors as error:
            self._connection.close()
            raise self._make_read_error(error) from None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._connection.close()

    def _list_top_level_columns(self) -> list[str]:
        """Return the top-level columns: the schema lists each column before its children."""
        nodes = self._connection.execute("SELECT name, num_children FROM parquet_schema(?)", [self._name])
        names, remaining_children = [], [1]
        while page := nodes.fetchmany(2048):
            for name, children in page:
                while remaining_children and not remaining_children[-1]:
                    remaining_children.pop()
                if len(remaining_children) == 2:
                    names.append(name)
                if remaining_children:
                    remaining_children[-1] -= 1
                remaining_children.append(children or 0)
        return names

    def read_rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the cells of these columns, row by row; texts are truncated to ``TEXT_CHARACTERS``.

        Raises ``UsageError`` for a column whose type is neither an id nor a time, and for a damaged file.
        """
        source = "read_parquet(?, binary_as_string = true, hive_partitioning = false)"
        try:
            columns = ", ".join(quote_name(name) for name in names)
            types = self._connection.execute(f"SELECT {columns} FROM {source} LIMIT 0", [self._name]).description or []  # noqa: S608 - quoted
            cells = ", ".join(
                self._build_cell_query(name, str(column[1])) for name, column in zip(names, types, strict=True)
            )
            rows = self._connection.execute(f"SELECT {cells} FROM {source}", [self._name])  # noqa: S608 - quoted
            while page := rows.fetchmany(2048):
                yield from page
        except self._errors as error:
            raise self._make_read_error(error) from None

    def _build_cell_query(self, name: str, kind: str) -> str:
        """Return the SQL of a column, which truncates long texts."""
        if kind.startswith(_TEXT_TYPES) and not kind.endswith("]"):
            return f"left(CAST({quote_name(name)} AS VARCHAR), {TEXT_CHARACTERS})"
        if kind == "TIMESTAMP WITH TIME ZONE":  # which DuckDB returns as an object only if pytz is installed
            formatted = f"strftime(make_timestamp(epoch_us({quote_name(name)})), '%Y-%m-%dT%H:%M:%S.%fZ')"
            return f"CASE WHEN isinf({quote_name(name)}) THEN 'infinity' ELSE {formatted} END"
        if _SMALL_TYPES.fullmatch(kind):
            return quote_name(name)
        reason = ", which rounds numbers of more than 7 digits" if kind == "FLOAT" else ""
        raise UsageError(f"{self._path}: column {name} is of type {kind[:60]}{reason}; write it as text")

    def _make_read_error(self, error: Exception) -> UsageError:
        if "Out of Memory" in str(error):
            return UsageError(
                f"{self._path}: reading it takes more than {MEMORY_LIMIT_MB} MB of memory, because its cells or pages "
                "are too large; write it with smaller row groups, or as CSV"
            )
        if "Invalid string encoding" in str(error):
            return UsageError(
                f"{self._path}: a column contains bytes that are not UTF-8, for example UUIDs of 16 bytes; write it as "
                "text, or as the logical type UUID"
            )
        return UsageError(f"{self._path}: cannot be read as Parquet: {str(error).splitlines()[0]}")


def _check_footer(path: Path) -> None:
    """Check the length of the footer before it is read. The length is stored in front of the last four bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(8)[:4], "little")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; check the file") from None
    if MAX_FOOTER_BYTES < length < size:
        raise UsageError(
            f"{path}: its footer has {length} bytes; the limit is {MAX_FOOTER_BYTES}; "
            "write it with fewer columns or larger row groups, or as CSV"
        )
