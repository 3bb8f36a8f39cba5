"""Reads the rows of a list in JSON: one object on each line, or objects in one array."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from harvester.model import BadLine
from harvester.sources.columns import AmbiguousColumn, find_field
from harvester.sources.fields import MAX_EXACT_FLOAT, InvalidField
from harvester.sources.lists.json_elements import Element, read_json_elements
from harvester.sources.lists.lines import MAX_CHARACTERS, PeekedText, read_lines
from harvester.sources.lists.list_options import ListOptions
from harvester.sources.lists.rows import MAX_QUOTED_CHARACTERS, ListFormat, Row

_MAX_CACHED_NAMES = 1000


def read_json_rows(
    name: str, text: PeekedText, options: ListOptions, found: ListFormat
) -> Iterator[Row | BadLine | None]:
    """Yield the objects, and None for blank lines, empty objects and nulls."""
    first_line = next((line.strip() for line in text.peek_lines() if line.strip()), "")
    if first_line.startswith("[") or first_line == "{":
        found.details.append("one array" if first_line.startswith("[") else "objects over several lines")
        elements = read_json_elements(text)
    else:
        found.details.append("one object per line")
        elements = (Element(number, 1, line, whole) for number, line, whole in read_lines(text))
    objects = _ObjectReader(options)
    for element in elements:
        if not element.whole:
            problem = f"the object is longer than {MAX_CHARACTERS} characters; remove fields that are not needed"
            yield _create_bad_line(name, element, "", problem)
        elif element.problem:
            yield _create_bad_line(name, element, "", element.problem)
        elif element.text.isspace():
            yield None
        else:
            try:
                row = objects.read_row(element)
            except InvalidField as error:
                yield _create_bad_line(name, element, error.field, error.problem)
            else:
                if row is not None and not found.columns:
                    found.set_columns(row.columns, (key for key, _ in row.all_fields))
                yield row


def _create_bad_line(name: str, element: Element, field: str, problem: str) -> BadLine:
    return BadLine(name, element.line, field, problem, element.text[:MAX_QUOTED_CHARACTERS], element.lines)


class _ObjectReader:
    """Reads objects, and stores which field each name of a member belongs to."""

    def __init__(self, options: ListOptions) -> None:
        self._columns = options.columns
        self._fields_by_name: dict[str, str | None] = {}

    def read_row(self, element: Element) -> Row | None:
        """Return the row of an object, or None if the object is empty. Raises ``InvalidField``."""
        record = _parse_object(element.text)
        if not record:
            return None
        fields, columns = self._select_fields(record)
        if "\\u" in element.text or any(element.text.count(f'"{name}"') > 1 for name in columns.values()):
            self._check_fields_unique(element.text)
        return Row(element.line, element.lines, fields, columns, record.items())

    def _select_fields(self, record: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the known fields of an object, and their names. Raises ``InvalidField`` if two members fit a field."""
        fields: dict[str, Any] = {}
        columns: dict[str, str] = {}
        for name, value in record.items():
            field = self._find_field(name)
            if field is not None:
                if field in fields and self._choose_name(field, columns[field], name) != name:
                    continue
                fields[field], columns[field] = value, name
        return fields, columns

    def _find_field(self, name: str) -> str | None:
        try:
            return self._fields_by_name[name]
        except KeyError:
            field = find_field(name, self._columns)
            if len(self._fields_by_name) < _MAX_CACHED_NAMES:
                self._fields_by_name[name] = field
            return field

    def _check_fields_unique(self, text: str) -> None:
        """Raise ``InvalidField`` if an object repeats a known field. A parser would silently use the last one."""
        outermost: list[tuple[str, object]] = []

        def store_members(members: list[tuple[str, object]]) -> None:
            outermost[:] = members  # the parser finishes the outermost object last

        try:
            json.loads(text, object_pairs_hook=store_members, parse_int=str, parse_float=str)
        except RecursionError:
            raise InvalidField("", "the line is nested too deeply") from None
        names: dict[str, str] = {}
        for name, _ in outermost:
            field = self._find_field(name)
            if field is not None:
                names[field] = self._choose_name(field, names[field], name) if field in names else name

    def _choose_name(self, field: str, first: str, second: str) -> str:
        """Return the one of two names of a field that the user gave in this spelling. Raises ``InvalidField``."""
        given = self._columns.get(field)
        if first != second and given in (first, second):
            return given
        first, second = AmbiguousColumn(field, (), (first, second)).names
        named = "is named twice in one object" if first == second else f"could be {first!r} or {second!r} in one object"
        raise InvalidField(field, f"{named}; remove one, or choose one with --column {field}=NAME")


def _parse_object(text: str) -> dict[str, Any] | None:
    """Parse an object; return None for a null. Raises ``InvalidField``."""
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        record = _parse_leniently(text, f"it is not JSON: {error.msg} at column {error.colno}")
    if record is None:
        return None
    if not isinstance(record, dict):
        raise InvalidField("", "it is not a JSON object")
    if any(isinstance(value, float) and abs(value) >= MAX_EXACT_FLOAT for value in record.values()):
        return dict(_parse_leniently(text, "it is not JSON"))  # orjson rounds large whole numbers
    return record


def _parse_leniently(text: str, problem: str) -> Any:
    """Parse JSON that orjson refuses or rounds: NaN, long numbers, halves of surrogate pairs, a comma at the end."""
    try:
        return json.loads(text.rstrip().removesuffix(","), parse_int=_parse_int)
    except (ValueError, RecursionError):
        raise InvalidField("", problem) from None


def _parse_int(text: str) -> int | str:
    """Parse a whole number, or return its text if it is very long."""
    return int(text) if len(text) <= _MAX_DIGITS else text


_MAX_DIGITS = 64
