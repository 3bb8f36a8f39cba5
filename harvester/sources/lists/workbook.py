"""Reads the rows of an Excel workbook through a process of its own (``workbook_process``), which has limits."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO

from harvester.errors import UsageError
from harvester.model import BadLine
from harvester.sources.columns import AmbiguousColumn, contains_pair, list_columns
from harvester.sources.lists import workbook_process
from harvester.sources.lists.csv_records import Record
from harvester.sources.lists.csv_rows import read_table_rows
from harvester.sources.lists.list_options import ListOptions
from harvester.sources.lists.rows import ListFormat, Row

_MAX_TITLE_ROWS = 20
"""How many rows with content may be above the header of a workbook."""


def read_workbook_rows(
    name: str, path: Path, options: ListOptions, found: ListFormat
) -> Iterator[Row | BadLine | None]:
    """Yield the rows after the header of a sheet, as ``read_table_rows`` does. Titles above the header are skipped.

    Raises ``UsageError`` if the workbook cannot be read, or needs too much memory, or lacks the required columns.
    """
    command = [sys.executable, "-P", workbook_process.__file__, str(path), options.sheet or ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8") as process:  # noqa: S603 - our own script
        assert process.stdout is not None
        sheets: list[str] = []
        try:
            sheet, sheets = _read_sheet_names(name, process.stdout)
            found.details.append(f"sheet {sheet!r} of {len(sheets)}")
            records = _read_records(name, process.stdout)
            if not options.no_header:
                records = _skip_titles(records, options)
            yield from read_table_rows(name, records, options, found)
        except UsageError as error:
            if options.sheet is None and len(sheets) > 1:
                listed = ", ".join(map(repr, sheets))
                raise UsageError(f"{error}. The sheets are {listed}; choose one with --sheet NAME") from None
            raise
        finally:
            process.kill()


def _read_sheet_names(name: str, lines: IO[str]) -> tuple[str, list[str]]:
    """Return the name of the sheet that is read, and of all sheets. Raises ``UsageError`` if none can be read."""
    first = json.loads(lines.readline() or "{}")
    if "sheet" not in first:
        raise UsageError(f"{name}: {first.get('problem') or _describe_end()}")
    return first["sheet"], first["sheets"]


def _read_records(name: str, lines: IO[str]) -> Iterator[Record]:
    """Yield the rows of the process that are not empty. Raises ``UsageError`` if it ends before the last one."""
    for line in lines:
        row = json.loads(line)
        if row is None:
            return
        number, cells, types = row
        if any(map(str.strip, cells)):
            yield Record(number, 1, cells, types={int(position): kind for position, kind in types.items()})
    raise UsageError(f"{name}: {_describe_end()}")


def _describe_end() -> str:
    return (
        f"reading the workbook takes more than {workbook_process.MEMORY_LIMIT_MB} MB of memory or "
        f"{workbook_process.CPU_LIMIT_SECONDS} seconds, because it has too many or too distant cells; save it as CSV"
    )


def _skip_titles(records: Iterator[Record], options: ListOptions) -> Iterator[Record]:
    """Return the records from the header on, or from the first one on if none of the first ones is a header."""
    first: Record | None = None  # the others are not stored: a row may have 16,384 texts
    for record in islice(records, _MAX_TITLE_ROWS):
        first = first or record
        with suppress(AmbiguousColumn):
            names = (cell.strip() for cell in record.cells if len(cell) < workbook_process.TEXT_CHARACTERS)
            if contains_pair(list_columns(names, options.columns)):
                return chain([record], records)
    return chain([first] if first else [], records)
