"""The rows of a list in CSV, NDJSON or Parquet: of each, the fields that say something of a pair.

Names of columns are compared without regard to case. A list that names one of them twice cannot be read, since either
could be meant.
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
from harvester.sources.fields import COLUMNS, REQUIRED, Unusable
from harvester.sources.lines import MAX_CHARACTERS, Readable, lines_of, records_of
from harvester.text import printable

API_ID = "campaign_api_id"
"""What Braze's share in Snowflake calls the campaign's id: its ``campaign_id`` is one that no API takes."""

SHARE_COLUMNS = (API_ID, "canvas_id", "canvas_api_id", "time")
_OURS = frozenset((*COLUMNS, *SHARE_COLUMNS))
_IDS = frozenset((*REQUIRED, API_ID))
_SHOWN_CHARACTERS = 500


class Row(NamedTuple):
    """A row: its line, how many lines it takes, the fields that we know, and all fields for an error report."""

    line: int
    lines: int
    fields: dict[str, Any]
    whole: Iterable[tuple[str, object]]

    def as_json(self) -> str:
        """Write the row as its line may have been, cut where it is long; one nested too deeply is left out."""
        try:  # not by orjson: bytes that were no UTF-8 stand as surrogates here, which it refuses
            return json.dumps(dict(self.whole), ensure_ascii=False, default=str)[:_SHOWN_CHARACTERS]
        except RecursionError:
            return ""


def csv_rows(name: str, file: Readable) -> Iterator[Row | BadLine]:
    """Give the rows below the header. Raises ``UsageError`` for a header that does not name what is needed."""
    records = records_of(file)
    first = next(records, None)
    if first is None:
        return
    if first.problem:
        raise UsageError(f"{name}: its header cannot be read: {first.problem}")
    header = [cell.strip() for cell in first.cells]
    places = _places(name, header)
    spelled = {first.cells[place] for field, place in places if field in _IDS}
    for line, lines, cells, problem, text in records:
        if not spelled.isdisjoint(cells):
            _check_order(name, line, cells, places)
        if problem:
            yield BadLine(name, line, "", problem, text, lines)
        elif len(cells) != len(header):
            wrong = f"{len(cells)} fields where the header has {len(header)}"
            yield BadLine(name, line, "", wrong, ",".join(cells)[:_SHOWN_CHARACTERS], lines)
        else:
            fields = {field: cells[place].strip() for field, place in places}
            yield Row(line, lines, fields, zip(header, cells, strict=True))


def _check_order(name: str, line: int, cells: Sequence[str], places: Sequence[tuple[str, int]]) -> None:
    """Raise ``UsageError`` for a second header in another order: all rows below it would be misread."""
    columns = [cell.strip("\ufeff \t").lower() for cell in cells]
    if len(_IDS.intersection(columns)) > 1 and any(columns[place : place + 1] != [field] for field, place in places):
        raise UsageError(
            f"{name}:{line}: a second header names the columns in another order, as where two lists were joined; "
            "give each list as a file of its own"
        )


def ndjson_rows(name: str, file: Readable) -> Iterator[Row | BadLine]:
    """Give the objects, one a line; blank lines are left out."""
    for number, line, whole in lines_of(file):
        if not whole:
            problem = f"the line is longer than {MAX_CHARACTERS} characters; leave out fields that are not needed"
            yield BadLine(name, number, "", problem, line[:_SHOWN_CHARACTERS])
        elif line.strip():
            try:
                record = _object(line)
                yield Row(number, 1, _fields(record), record.items())
            except Unusable as error:
                yield BadLine(name, number, error.field, error.problem, line[:_SHOWN_CHARACTERS])


def parquet_rows(name: str, path: Path) -> Iterator[Row]:
    """Give the rows of a Parquet file. Raises ``UsageError`` for one without the columns that are needed."""
    with ParquetFile(path) as file:
        places = _places(name, file.columns)
        names = [field for field, _ in places]
        for number, cells in enumerate(file.rows([file.columns[place] for _, place in places]), 1):
            fields = {field: _text(cell) for field, cell in zip(names, cells, strict=True)}
            yield Row(number, 1, fields, fields.items())


def _text(cell: object) -> object:
    """Return times as ISO 8601 text, and other cells unchanged."""
    return cell.isoformat() if isinstance(cell, date) else cell


def _places(name: str, header: Sequence[str]) -> list[tuple[str, int]]:
    """Find our columns in a header. Raises ``UsageError`` where one is missing or named twice."""
    places: dict[str, int] = {}
    for place, column in enumerate(header):
        field = column.strip().lower()
        if field not in _OURS:
            continue
        if field in places:
            raise UsageError(
                f"{name}: its header names {field} twice, as columns {places[field] + 1} and {place + 1}; "
                "leave one of them out"
            )
        places[field] = place
    missing = [field for field in REQUIRED if field not in places]
    if API_ID in places:
        missing = [field for field in missing if field != "campaign_id"]
    if missing:
        found = printable(", ".join(header))[:200] or "none"
        raise UsageError(
            f"{name}: its header must contain the columns {' and '.join(REQUIRED)}; found: {found}{_hint(header)}"
        )
    return list(places.items())


def _hint(header: Sequence[str]) -> str:
    """Return advice if another character than a comma separates our columns in a header."""
    for separator, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
        if any(separator in cell and _OURS.intersection(_words(cell, separator)) for cell in header):
            return f". Only commas separate columns, and these are {what}: export the list again with commas"
    return ""


def _words(cell: str, separator: str) -> list[str]:
    return [word.strip().strip('"').lower() for word in cell.split(separator)]


def _object(line: str) -> dict[str, Any]:
    """Read a line as an object. Raises ``Unusable``."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Unusable("", f"is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise Unusable("", "is not a JSON object")
    lower = line.lower()
    if "\\u" in lower or any(lower.count(f'"{field}"') > 1 for field in _OURS):
        _check_unique(line)
    return record


def _check_unique(line: str) -> None:
    """Raise ``Unusable`` where an object names one of our fields twice: a parser keeps the last in silence."""
    outermost: list[tuple[str, object]] = []

    def keep(pairs: list[tuple[str, object]]) -> None:
        outermost[:] = pairs  # the outermost object ends last

    try:
        json.loads(line, object_pairs_hook=keep, parse_int=str, parse_float=str)
    except RecursionError:
        raise Unusable("", "nested too deeply") from None
    seen = set()
    for key, _ in outermost:
        if key in seen and key.lower() in _OURS:
            raise Unusable(key.lower(), "named twice in one object; leave one of them out")
        seen.add(key)


def _fields(record: Mapping[str, object]) -> dict[str, Any]:
    """Give our fields of an object. Raises ``Unusable`` for two that differ in case alone."""
    fields: dict[str, Any] = {}
    for key, value in record.items():
        field = key.lower()
        if field in _OURS:
            if field in fields:
                raise Unusable(field, "named twice in one object, in upper and lower case; leave one of them out")
            fields[field] = value
    return fields
