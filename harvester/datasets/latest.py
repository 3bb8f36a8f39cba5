"""Writes the latest view: the newest numbers of every send, from all parts."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harvester.datasets.dialects import ColumnType
from harvester.datasets.latest_view import View, build_staged_view, build_view
from harvester.datasets.members import find_members
from harvester.datasets.part_files import FolderParts, PartFiles
from harvester.datasets.sql import limit_memory
from harvester.datasets.staging import IrregularNames, stage_parts
from harvester.datasets.view_files import DatabaseTable, PartitionFiles, SingleFile, ViewFiles, select_changed
from harvester.errors import SinkError, UsageError
from harvester.model import DATASET

_MEMORY_LIMIT_MB = 512


class WrittenView(NamedTuple):
    """The number of rows written, and of counters that have no column of their own."""

    row_count: int
    folded_count: int


def write_latest(
    source: Path | PartFiles,
    out: Path | None,
    file_format: str,
    *,
    since: str | None = None,
    partition_by: str | None = None,
    table: str = "latest",
    memory_limit_mb: int = _MEMORY_LIMIT_MB,
    temp_directory: Path,
) -> WrittenView:
    """Write the latest view of parts to a file, a folder, a database or standard output. Files are atomic.

    For each pair, date, level, channel and variation it keeps the newest row with a counter other than 0, else the
    newest row: zeros that Braze returns after expiry do not hide the numbers. Absent counters are null, in NDJSON too,
    because readers infer columns from the first rows. In CSV, text that a spreadsheet would run as a formula gets a
    leading apostrophe. Beyond ``MAX_COUNTERS``, the rarest counters are JSON text in ``unrecognized``.

    ``file_format`` is ndjson, csv, parquet, or duckdb for ``table`` in a database file. ``out`` is a folder if
    ``partition_by`` names a column. With ``since``, a day such as 2026-11-20, only rows that were captured on that day
    or later are written; with partitions, all rows of the partitions with such a row.

    Raises ``UsageError`` if there is no part or ``out`` cannot be written, ``SinkError`` for a damaged part.
    """
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    parts = FolderParts(source) if isinstance(source, Path) else source
    _check_parts(parts)
    files = _choose_output(out, file_format, partition_by, table, temp_directory)
    with _describe_errors(parts.place, files, memory_limit_mb, temp_directory), duckdb.connect() as connection:
        limit_memory(connection, memory_limit_mb, temp_directory)
        with _select_newest(connection, parts, temp_directory, escape_formulas=file_format == "csv") as view:
            rows = files.write(connection, select_changed(view.query, since, partition_by))
    files.publish()
    return WrittenView(rows, view.folded_count)


def _choose_output(
    out: Path | None, file_format: str, partition_by: str | None, table: str, temp_directory: Path
) -> ViewFiles:
    """Return the output for a path and format. Raises ``UsageError`` if they do not fit together."""
    if out is None and (file_format not in ("ndjson", "csv") or partition_by):
        raise UsageError("only NDJSON and CSV in one file can be written to standard output; use -o")
    if out is not None and partition_by:
        return PartitionFiles(out, file_format, partition_by)
    if out is not None and file_format == "duckdb":
        return DatabaseTable(out, table)
    return SingleFile(out, file_format, temp_directory)


@contextmanager
def _select_newest(connection: Any, parts: PartFiles, temp_directory: Path, *, escape_formulas: bool) -> Iterator[View]:
    """Return the view, which can be queried inside the context.

    The parts are staged, so each is read once. If their counters cannot all be columns, which occurs only in datasets
    of older versions, the parts are read several times instead.
    """
    with tempfile.TemporaryDirectory(dir=temp_directory) as staging, ExitStack() as opened:
        try:
            staged = stage_parts(connection, parts, Path(staging))
            view = build_staged_view(connection, staged, escape_formulas=escape_formulas)
        except IrregularNames:
            paths = [opened.enter_context(parts.open(name)) for name in parts.names]
            view = build_view(find_members(connection, paths), paths, escape_formulas=escape_formulas)
        yield view


def find_column_types(folder: Path, *, temp_directory: Path) -> dict[str, ColumnType]:
    """Return the members of the rows in a folder, with the type that contains all of their values.

    A member whose values are all null is left out. Raises as ``write_latest`` does.
    """
    import duckdb  # noqa: PLC0415 - as above

    parts = FolderParts(folder)
    _check_parts(parts)
    with _describe_errors(parts.place, None, _MEMORY_LIMIT_MB, temp_directory), duckdb.connect() as connection:
        limit_memory(connection, _MEMORY_LIMIT_MB, temp_directory)
        members = find_members(connection, list(map(Path, parts.names)))
    inferred = {name: members.infer_type(name) for name in members.types}
    return {name: each for name, each in inferred.items() if each is not None}


def _check_parts(parts: PartFiles) -> None:
    """Raise ``UsageError`` if the place has no parts. The message is different if harvester has used the place."""
    if parts.names:
        return
    if parts.is_used:
        raise UsageError(
            f"{parts.place} contains no parts below {DATASET}/, but harvester has used it ({parts.place}/.harvester "
            f"exists); run harvester doctor -o {parts.place} to check for missing parts"
        )
    raise UsageError(f"{parts.place} contains no parts; name the place that contains {DATASET}/captured_date=.../")


@contextmanager
def _describe_errors(place: str, files: ViewFiles | None, memory_limit_mb: int, temp_directory: Path) -> Iterator[None]:
    """Turn an error of DuckDB into a sentence that says what to do, and delete the incomplete view."""
    import duckdb  # noqa: PLC0415 - as above

    try:
        yield
    except duckdb.OutOfMemoryException:
        if files is not None:
            files.discard()
        raise SinkError(
            f"the latest view of {place} needs more than {memory_limit_mb} MB of memory, or more space for temporary "
            f"files than {temp_directory.parent} has; raise --memory-limit-mb, or set TMPDIR to a larger volume"
        ) from None
    except duckdb.Error as error:
        if files is not None:
            files.discard()
        raise SinkError(f"cannot read the parts of {place}: {str(error).splitlines()[0]}") from None
