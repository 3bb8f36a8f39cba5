"""Writes the latest view: the newest numbers of every send, from all parts."""

import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harvester.datasets.dialects import ColumnType
from harvester.datasets.latest_view import build_view
from harvester.datasets.members import find_members
from harvester.datasets.sql import limit_memory, quote_text
from harvester.errors import SinkError, UsageError
from harvester.model import DATASET, is_part
from harvester.private_files import make_private_file

_COPY_OPTIONS = {
    "ndjson": "(FORMAT json)",
    "csv": "(FORMAT csv, HEADER)",
    "parquet": "(FORMAT parquet, COMPRESSION zstd)",
}


_MEMORY_LIMIT_MB = 512


class WrittenView(NamedTuple):
    """The number of rows written, and of counters that have no column of their own."""

    row_count: int
    folded_count: int


def write_latest(
    folder: Path, out: Path | None, file_format: str, *, memory_limit_mb: int = _MEMORY_LIMIT_MB, temp_directory: Path
) -> WrittenView:
    """Write the latest view of a folder to a file (atomically) or to standard output.

    For each pair, date, level, channel and variation it keeps the newest row with a counter other than 0, else the
    newest row: zeros that Braze returns after expiry do not hide the numbers. Absent counters are null, in NDJSON too,
    because readers infer columns from the first rows. In CSV, text that a spreadsheet would run as a formula gets a
    leading apostrophe. ``file_format`` is ndjson, csv or parquet. Beyond ``MAX_COUNTERS``, the rarest counters are
    JSON text in ``unrecognized``.

    Raises ``UsageError`` if there is no part or ``out`` cannot be written, ``SinkError`` for a damaged part.
    """
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    parts = _list_parts(folder)
    if file_format == "parquet" and out is None:
        raise UsageError("Parquet cannot be written to standard output; use -o FILE")
    temporary = temp_directory / "latest" if out is None else _make_temporary_path(out)
    _check_writable(temporary)
    with _describe_errors(folder, temporary, memory_limit_mb, temp_directory), duckdb.connect() as connection:
        limit_memory(connection, memory_limit_mb, temp_directory)
        view = build_view(find_members(connection, parts), parts, escape_formulas=file_format == "csv")
        copy = f"COPY ({view.query}) TO {quote_text(str(temporary))} {_COPY_OPTIONS[file_format]}"
        written = connection.execute(copy).fetchone()
    if out is None:
        _copy_to_stdout(temporary)
    else:
        temporary.replace(out)
    return WrittenView(int(written[0]) if written else 0, view.folded_count)


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


def _make_temporary_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.{secrets.token_hex(4)}.making")


def _check_writable(path: Path) -> None:
    """Raise ``UsageError`` if the folder is not writable, or if the name exists, even as a link."""
    try:
        make_private_file(path)
        path.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {path.parent}: {error.strerror}") from None


@contextmanager
def _describe_errors(
    folder: Path, temporary: Path | None, memory_limit_mb: int, temp_directory: Path
) -> Iterator[None]:
    """Turn an error of DuckDB into a sentence that says what to do, and delete the incomplete view."""
    import duckdb  # noqa: PLC0415 - as above

    try:
        yield
    except duckdb.OutOfMemoryException:
        _delete(temporary)
        raise SinkError(
            f"the latest view of {folder} needs more than {memory_limit_mb} MB of memory, or more space for temporary "
            f"files than {temp_directory.parent} has; raise --memory-limit-mb, or set TMPDIR to a larger volume"
        ) from None
    except duckdb.Error as error:
        _delete(temporary)
        raise SinkError(f"cannot read the parts of {folder}: {str(error).splitlines()[0]}") from None


def _delete(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)


def _copy_to_stdout(path: Path) -> None:
    with path.open("rb") as view:
        shutil.copyfileobj(view, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _describe_missing_parts(folder: Path) -> str:
    """Return the error for a folder without parts. If it has ``.harvester/``, parts may have been lost."""
    if (folder / ".harvester").is_dir():
        return (
            f"{folder} contains no parts below {DATASET}/, but harvester has used it ({folder}/.harvester exists); "
            f"run harvester doctor -o {folder} to check for missing parts"
        )
    return f"{folder} contains no parts; name the place that contains {DATASET}/captured_date=.../"
