"""Reads the rows of a list in CSV, NDJSON or Parquet, and the fields of a pair in each row.

The case of column names does not matter. A list that has one of these columns twice is refused as ambiguous.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from harvester.datasets import ParquetFile
from harvester.errors import UsageError
from harvester.model import BadLine
from harvester.sources.csv_records import Record, read_csv_records
from harvester.sources.fields import ID_FIELDS, PAIR_FIELDS, InvalidField
from harvester.sources.lines import MAX_CHARACTERS, TextFile, read_lines
from harvester.text import printable

API_ID = "campaign_api_id"
"""The campaign id in Braze's Snowflake share. The share's ``campaign_id`` is an internal id that no API accepts."""

SHARE_COLUMNS = (API_ID, "canvas_id", "canvas_api_id", "time")
_KNOWN_COLUMNS = frozenset((*PAIR_FIELDS, *SHARE_COLUMNS))
_ID_COLUMNS = frozenset((*ID_FIELDS, API_ID))
_MAX_QUOTED_CHARACTERS = 500
_MAX_HEADER_CHARACTERS = 200
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class Row(NamedTuple):
    """A row: its first line, its number of lines, its known fields, and all its fields for an error report."""

    line: int
    lines: int
    fields: dict[str, Any]
    all_fields: Iterable[tuple[str, object]]

    def to_json(self) -> str:
        """Return the row as JSON, truncated if it is long, or an empty text if it is nested too deeply."""
        try:  # orjson would refuse the surrogates that replace bytes that are not UTF-8
            return json.dumps(dict(self.all_fields), ensure_ascii=False, default=str)[:_MAX_QUOTED_CHARACTERS]
        except RecursionError:
            return ""


class _Column(NamedTuple):
    """A known column and its position in the header."""

    field: str
    position: int


def read_csv_rows(name: str, file: TextFile) -> Iterator[Row | BadLine]:
    """Yield the rows after the header. Raises ``UsageError`` for a header without the required columns."""
    records = read_csv_records(file)
    first = next(records, None)
    if first is None:
        return
    if first.problem:
        raise UsageError(f"{name}: its header cannot be read: {first.problem}")
    header = [cell.strip() for cell in first.cells]
    columns = _find_columns(name, header)
    id_cells = {first.cells[each.position] for each in columns if each.field in _ID_COLUMNS}
    for record in records:
        if not id_cells.isdisjoint(record.cells):
            _check_repeated_header(name, record, columns)
        yield _read_csv_row(name, record, header, columns)


def _read_csv_row(name: str, record: Record, header: Sequence[str], columns: Sequence[_Column]) -> Row | BadLine:
    line, lines, cells, problem, text = record
    if problem:
        return BadLine(name, line, "", problem, text, lines)
    if len(cells) != len(header):
        problem = f"the line has {len(cells)} fields, but the header has {len(header)}"
        return BadLine(name, line, "", problem, ",".join(cells)[:_MAX_QUOTED_CHARACTERS], lines)
    fields = {field: cells[position].strip() for field, position in columns}
    return Row(line, lines, fields, zip(header, cells, strict=True))


def _check_repeated_header(name: str, record: Record, columns: Sequence[_Column]) -> None:
    """Raise ``UsageError`` if a record is a header in another order. All rows after it would be misread."""
    cells = [cell.strip("\ufeff \t").lower() for cell in record.cells]
    moved = any(cells[position : position + 1] != [field] for field, position in columns)
    if len(_ID_COLUMNS.intersection(cells)) > 1 and moved:
        raise UsageError(
            f"{name}:{record.line}: a second header names the columns in another order; if two lists were joined, "
            "save each list as a separate file"
        )


def read_ndjson_rows(name: str, file: TextFile) -> Iterator[Row | BadLine]:
    """Yield the objects, one for each line that is not blank."""
    for number, line, whole in read_lines(file):
        if not whole:
            problem = f"the line is longer than {MAX_CHARACTERS} characters; remove fields that are not needed"
            yield BadLine(name, number, "", problem, line[:_MAX_QUOTED_CHARACTERS])
        elif line.strip():
            try:
                record = _parse_object(line)
                yield Row(number, 1, _select_fields(record), record.items())
            except InvalidField as error:
                yield BadLine(name, number, error.field, error.problem, line[:_MAX_QUOTED_CHARACTERS])


def read_parquet_rows(name: str, path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Raises ``UsageError`` for a file without the required columns."""
    with ParquetFile(path) as file:
        columns = _find_columns(name, file.columns)
        rows = file.read_rows([file.columns[each.position] for each in columns])
        for number, cells in enumerate(rows, 1):
            fields = {column.field: _format_time(cell) for column, cell in zip(columns, cells, strict=True)}
            yield Row(number, 1, fields, fields.items())


def _format_time(cell: object) -> object:
    """Return times as ISO 8601 text, and other cells unchanged."""
    return cell.isoformat() if isinstance(cell, date) else cell


def _find_columns(name: str, header: Sequence[str]) -> list[_Column]:
    """Return the known columns in a header. Raises ``UsageError`` if a required one is missing or one is repeated."""
    positions: dict[str, int] = {}
    for position, column in enumerate(header):
        field = column.strip().lower()
        if field not in _KNOWN_COLUMNS:
            continue
        if field in positions:
            raise UsageError(
                f"{name}: the header contains {field} twice, as columns {positions[field] + 1} and {position + 1}; "
                "remove one of them"
            )
        positions[field] = position
    _check_required_columns(name, header, positions)
    return [_Column(field, position) for field, position in positions.items()]


def _check_required_columns(name: str, header: Sequence[str], positions: Mapping[str, int]) -> None:
    has_campaign = API_ID in positions or "campaign_id" in positions
    if not has_campaign or "send_id" not in positions:
        found = printable(", ".join(header))[:_MAX_HEADER_CHARACTERS] or "none"
        required = " and ".join(ID_FIELDS)
        raise UsageError(
            f"{name}: the header must contain the columns {required}; found: {found}{_find_separator_hint(header)}"
        )


def _find_separator_hint(header: Sequence[str]) -> str:
    """Return advice if another character than a comma separates the columns in a header."""
    for separator, plural in _SEPARATORS.items():
        if any(separator in cell and _KNOWN_COLUMNS.intersection(_split_words(cell, separator)) for cell in header):
            return f". Columns must be separated by commas, not by {plural}; export the list again with commas"
    return ""


def _split_words(cell: str, separator: str) -> list[str]:
    return [word.strip().strip('"').lower() for word in cell.split(separator)]


def _parse_object(line: str) -> dict[str, Any]:
    """Parse a line as an object. Raises ``InvalidField``."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidField("", f"the line is not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(record, dict):
        raise InvalidField("", "the line is not a JSON object")
    lower = line.lower()
    if "\\u" in lower or any(lower.count(f'"{field}"') > 1 for field in _KNOWN_COLUMNS):
        _check_fields_unique(line)
    return record


def _check_fields_unique(line: str) -> None:
    """Raise ``InvalidField`` if an object repeats a known field. A parser would silently use the last one."""
    outermost: list[tuple[str, object]] = []

    def store_members(members: list[tuple[str, object]]) -> None:
        outermost[:] = members  # the parser finishes the outermost object last

    try:
        json.loads(line, object_pairs_hook=store_members, parse_int=str, parse_float=str)
    except RecursionError:
        raise InvalidField("", "the line is nested too deeply") from None
    seen = set()
    for key, _ in outermost:
        if key in seen and key.lower() in _KNOWN_COLUMNS:
            raise InvalidField(key.lower(), "is named twice in one object; remove one of them")
        seen.add(key)


def _select_fields(record: Mapping[str, object]) -> dict[str, Any]:
    """Return the known fields of an object. Raises ``InvalidField`` if the names of two differ only in case."""
    fields: dict[str, Any] = {}
    for key, value in record.items():
        field = key.lower()
        if field in _KNOWN_COLUMNS:
            if field in fields:
                raise InvalidField(field, "is named twice in one object, in upper and lower case; remove one of them")
            fields[field] = value
    return fields
