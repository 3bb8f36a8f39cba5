"""Writes the rows of parts to temporary Parquet files, so that each part is read once.

A counter is kept as its JSON text until all parts are read, because its type is only known then. The files usually take
less space than the parts. They are read by column: first to choose the newest rows, then to write only these.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harvester.datasets.dialects import DIALECTS, ColumnType
from harvester.datasets.layout import FIXED_MEMBERS, Layout, Marks
from harvester.datasets.members import build_object_table
from harvester.datasets.part_files import PartFiles
from harvester.datasets.sql import THREADS, escape_path, quote_name, quote_text, quote_texts

TEXT_COLUMNS = (*FIXED_MEMBERS, "ending_at", "since")
MAX_COUNTERS = 500
"""At most this many counters have a column. DuckDB needs a megabyte for each, for any number of rows."""

_FILES = 32
_MAX_PARTS_PER_FILE = 32
_CELLS_PER_ROW_GROUP = 2_000_000


class IrregularNames(Exception):  # noqa: N818 - a result, not a fault
    """The counters cannot all be columns: there are too many, or DuckDB cannot have columns of these names."""


@dataclass
class Staged:
    """The staged rows, and the types of their counters by name; None if all values are null."""

    paths: list[Path] = field(default_factory=list)
    types: dict[str, ColumnType | None] = field(default_factory=dict)

    def add(self, path: Path, types: dict[str, ColumnType | None]) -> None:
        """Add the rows of a file, and widen the types of the counters to its types."""
        self.paths.append(path)
        for name, kind in types.items():
            known = self.types.get(name)
            self.types[name] = max((each for each in (known, kind) if each), key=lambda each: each.value, default=None)


def stage_parts(connection: Any, parts: PartFiles, folder: Path) -> Staged:
    """Stage all parts in a folder. Raises ``IrregularNames``, ``SinkError`` for a damaged part, or ``duckdb.Error``."""
    size = max(1, min(len(parts.names) // _FILES, _MAX_PARTS_PER_FILE))
    groups = [parts.names[start : start + size] for start in range(0, len(parts.names), size)]
    staging, staged = _Staging(connection, parts, folder), Staged()
    with ThreadPoolExecutor(THREADS) as pool:  # DuckDB reads a compressed part with one thread
        try:
            for path, types in pool.map(staging.stage, range(len(groups)), groups):
                staged.add(path, types)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return staged


class _Staging:
    """Stages groups of parts. The names that were found in earlier groups get columns in later ones."""

    def __init__(self, connection: Any, parts: PartFiles, folder: Path) -> None:
        self._connection, self._parts, self._folder = connection, parts, folder
        self._names: set[str] = set()

    def stage(self, number: int, names: Sequence[str]) -> tuple[Path, dict[str, ColumnType | None]]:
        """Write the rows of a group of parts to one file; returns the file and the types of its counters."""
        connection, path, layout = self._connection.cursor(), self._folder / f"{number:06d}.parquet", Layout()
        with ExitStack() as opened:
            files = [opened.enter_context(self._parts.open(name)) for name in names]
            for file in files:
                layout.add_part(file)
            self._names |= layout.names
            counters = self._list_counters()
            self._copy(connection, files, counters, layout.object_bytes, path)
            types, marks = _summarize(connection, path, counters)
            if marks != layout.marks:  # some row has an unknown member, or another form
                self._names |= _list_names(connection, files, layout.object_bytes)
                if self._list_counters() != counters:
                    counters = self._list_counters()
                    self._copy(connection, files, counters, layout.object_bytes, path)
                    types, _ = _summarize(connection, path, counters)
        return path, types

    def _list_counters(self) -> list[str]:
        """Return the counters found so far. Raises ``IrregularNames``."""
        names = set(self._names)
        counters = sorted(names - set(TEXT_COLUMNS))
        columns = [*TEXT_COLUMNS, *counters]
        different = {name.lower() for name in columns} - {"", "_file", "_row", "file_row_number"}
        if len(counters) > MAX_COUNTERS or len(different) < len(columns):
            raise IrregularNames
        return counters

    def _copy(
        self, connection: Any, files: Sequence[Path], counters: Sequence[str], object_bytes: int, path: Path
    ) -> None:
        types = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | dict.fromkeys(counters, "JSON")
        columns = "{" + ", ".join(f"{quote_text(name)}: '{kind}'" for name, kind in types.items()) + "}"
        listed = ", ".join(f"CAST({quote_name(name)} AS VARCHAR) AS {quote_name(name)}" for name in types)
        listed += f", CAST({int(path.stem)} AS BIGINT) AS _file"
        rows = (
            f"read_json({quote_texts(map(escape_path, files))}, columns = {columns}, format = 'newline_delimited', "
            f"hive_partitioning = false, maximum_object_size = {object_bytes})"
        )
        group_rows = _CELLS_PER_ROW_GROUP // len(types)
        options = f"(FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {group_rows})"
        connection.execute(f"COPY (SELECT {listed} FROM {rows}) TO {quote_text(str(path))} {options}")  # noqa: S608 - quoted


def _summarize(connection: Any, path: Path, counters: Sequence[str]) -> tuple[dict[str, ColumnType | None], Marks]:
    """Return the type that contains all values of each counter, and the marks that these rows have in parts."""
    file = quote_text(escape_path(path))

    def select(figures: Sequence[str]) -> list[Any]:
        found = connection.execute(f"SELECT {', '.join(figures)} FROM read_parquet({file})").fetchone()  # noqa: S608 - quoted
        return list(found)

    column_values = f"SELECT sum(num_values - stats_null_count) FROM parquet_metadata({file}) GROUP BY column_id"  # noqa: S608 - quoted
    found = [int(number) for (number,) in connection.execute(f"{column_values} ORDER BY column_id").fetchall()]
    if not found:
        return dict.fromkeys(counters), Marks()  # the parts have no rows
    texts, rows = found[: len(TEXT_COLUMNS)], found[-1]  # the last column has the number of the file
    values = dict(zip(counters, found[len(TEXT_COLUMNS) :], strict=False))
    types = {name: ColumnType.INTEGER if values[name] else None for name in counters}
    small = [f"bool_and(regexp_full_match({quote_name(name)}, '-?[0-9]{{1,18}}'))" for name in counters]
    others = [
        name for name, is_small in zip(counters, select(small) if small else [], strict=True) if is_small is False
    ]
    strings = 0
    for name in others:
        column = quote_name(name)
        integer = f"regexp_full_match({column}, '-?[0-9]+') AND TRY_CAST({column} AS BIGINT) IS NOT NULL"
        quoted, integers, numbers = select([
            f"count(*) FILTER (starts_with({column}, '\"'))",
            f"count(*) FILTER ({integer})",
            f"count(*) FILTER (regexp_matches({column}, '^(-?[0-9]|NaN|-?Infinity)'))",
        ])  # fmt: skip
        strings += quoted
        if integers < values[name]:
            types[name] = ColumnType.DECIMAL if numbers == values[name] else ColumnType.TEXT
    fixed, optional = len(FIXED_MEMBERS) * rows, sum(texts[len(FIXED_MEMBERS) :])
    members = fixed + optional + sum(values.values())
    strings += sum(texts)
    return types, Marks(2 * (members + strings), strings, fixed + optional - sum(texts))


def _list_names(connection: Any, files: Sequence[Path], object_bytes: int) -> set[str]:
    """Return the members of all rows. This takes longer than staging them."""
    rows = build_object_table(files, object_bytes)
    return {name for (name,) in connection.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {rows}").fetchall()}  # noqa: S608 - quoted


def build_staged_table(staged: Staged) -> str:
    """Return the SQL of a table of the staged rows, with typed counters. ``_row`` identifies a row."""
    columns = [quote_name(name) for name in TEXT_COLUMNS]
    for name, kind in staged.types.items():
        column = quote_name(name)
        match kind:
            case ColumnType.INTEGER | ColumnType.DECIMAL:
                value = f"CAST({column} AS {DIALECTS['duckdb'].types[kind.value]})"
            case _:
                value = f"CAST({column} AS JSON) ->> '$'"
        columns.append(f"{value} AS {column}")
    paths = quote_texts(map(escape_path, staged.paths))
    options = "union_by_name = true, file_row_number = true, hive_partitioning = false"
    row = "(_file << 40) | file_row_number AS _row"
    return f"(SELECT {', '.join(columns)}, {row} FROM read_parquet({paths}, {options}))"  # noqa: S608 - quoted
