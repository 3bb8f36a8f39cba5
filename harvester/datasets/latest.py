"""Writes the latest view: the newest numbers of every send, from all parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harvester.datasets.dialects import ColumnType
from harvester.datasets.latest_view import build_view
from harvester.datasets.members import find_members
from harvester.datasets.sql import limit_memory
from harvester.datasets.view_files import DatabaseTable, PartitionFiles, SingleFile, ViewFiles, select_changed
from harvester.errors import SinkError, UsageError
from harvester.model import DATASET, is_part

_MEMORY_LIMIT_MB = 512


class WrittenView(NamedTuple):
    """The number of rows written, and of counters that have no column of their own."""

    row_count: int
    folded_count: int


def write_latest(
    folder: Path,
    out: Path | None,
    file_format: str,
    *,
    since: str | None = None,
    partition_by: str | None = None,
    table: str = "latest",
    memory_limit_mb: int = _MEMORY_LIMIT_MB,
    temp_directory: Path,
) -> WrittenView:
    """Write the latest view of a folder to a file, a folder, a database or standard output. Files are atomic.

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

    parts = _list_parts(folder)
    files: ViewFiles
    if out is None and (file_format not in ("ndjson", "csv") or partition_by):
        raise UsageError("only NDJSON and CSV in one file can be written to standard output; use -o")
    if out is not None and partition_by:
        files = PartitionFiles(out, file_format, partition_by)
    elif out is not None and file_format == "duckdb":
        files = DatabaseTable(out, table)
    else:
        files = SingleFile(out, file_format, temp_directory)
    with _describe_errors(folder, files, memory_limit_mb, temp_directory), duckdb.connect() as connection:
        limit_memory(connection, memory_limit_mb, temp_directory)
        view = build_view(find_members(connection, parts), parts, escape_formulas=file_format == "csv")
        rows = files.write(connection, select_changed(view.query, since, partition_by))
    files.publish()
    return WrittenView(rows, view.folded_count)


def find_column_types(folder: Path, *, temp_directory: Path) -> dict[str, ColumnType]:
    """Return the members of the rows in a folder, with the type that contains all of their values.

    A member whose values are all null is left out. Raises as ``write_latest`` does.
    """
    import duckdb  # noqa: PLC0415 - as above

    parts = _list_parts(folder)
    with _describe_errors(folder, None, _MEMORY_LIMIT_MB, temp_directory), duckdb.connect() as connection:
        limit_memory(connection, _MEMORY_LIMIT_MB, temp_directory)
        members = find_members(connection, parts)
    inferred = {name: members.infer_type(name) for name in members.types}
    return {name: each for name, each in inferred.items() if each is not None}


def _list_parts(folder: Path) -> list[Path]:
    """Return the parts of a folder. Raises ``UsageError`` if there is none."""
    parts = sorted(path for path in (folder / DATASET).glob("*/*") if is_part(path.name))
    if not parts:
        raise UsageError(_describe_missing_parts(folder))
    return parts


@contextmanager
def _describe_errors(
    folder: Path, files: ViewFiles | None, memory_limit_mb: int, temp_directory: Path
) -> Iterator[None]:
    """Turn an error of DuckDB into a sentence that says what to do, and delete the incomplete view."""
    import duckdb  # noqa: PLC0415 - as above

    try:
        yield
    except duckdb.OutOfMemoryException:
        if files is not None:
            files.discard()
        raise SinkError(
            f"the latest view of {folder} needs more than {memory_limit_mb} MB of memory, or more space for temporary "
            f"files than {temp_directory.parent} has; raise --memory-limit-mb, or set TMPDIR to a larger volume"
        ) from None
    except duckdb.Error as error:
        if files is not None:
            files.discard()
        raise SinkError(f"cannot read the parts of {folder}: {str(error).splitlines()[0]}") from None


def _describe_missing_parts(folder: Path) -> str:
    """Return the error for a folder without parts. If it has ``.harvester/``, parts may have been lost."""
    if (folder / ".harvester").is_dir():
        return (
            f"{folder} contains no parts below {DATASET}/, but harvester has used it ({folder}/.harvester exists); "
            f"run harvester doctor -o {folder} to check for missing parts"
        )
    return f"{folder} contains no parts; name the place that contains {DATASET}/captured_date=.../"
