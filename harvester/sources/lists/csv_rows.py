"""Reads the rows of a list in CSV, with any separator, and of other tables whose cells are texts."""

from collections.abc import Iterator, Sequence
from itertools import chain

from harvester.errors import UsageError
from harvester.model import BadLine
from harvester.sources.columns import API_ID, ID_COLUMNS, find_columns, find_field, normalize_name
from harvester.sources.lists.csv_records import Record, read_csv_records
from harvester.sources.lists.dialect import SEPARATORS, detect_dialect
from harvester.sources.lists.lines import PeekedText
from harvester.sources.lists.list_options import ListOptions
from harvester.sources.lists.rows import MAX_QUOTED_CHARACTERS, ListFormat, Row
from harvester.text import printable


def read_csv_rows(
    name: str, text: PeekedText, options: ListOptions, found: ListFormat
) -> Iterator[Row | BadLine | None]:
    """Yield the rows after the header. A None means that reading continues.

    Raises ``UsageError`` for a header without the required columns.
    """
    dialect = yield from detect_dialect(name, text, options)
    if text.peek_line():
        found.details.append(f"separated by {SEPARATORS.get(dialect.separator) or printable(dialect.separator)}")
    records = read_csv_records(text, separator=dialect.separator, lines_before=dialect.skipped_lines)
    yield from read_table_rows(name, records, options, found)


def read_table_rows(
    name: str, records: Iterator[Record], options: ListOptions, found: ListFormat
) -> Iterator[Row | BadLine | None]:
    """Yield the rows of a table whose first record is the header, as ``read_csv_rows`` does."""
    for first in records:
        if first.cells or first.problem:
            break
        yield None
    else:
        return
    if first.problem:
        raise UsageError(f"{name}: its header cannot be read: {first.problem}")
    if options.no_header:
        table = _Table(name, options.no_header, options, found)
        records = chain([first], records)
    else:
        table = _Table(name, [cell.strip() for cell in first.cells], options, found)
    found.set_columns(table.names, () if options.no_header else table.header)
    for record in records:
        yield table.read_row(record)


class _Table:
    """The header of a list, with which its records are read."""

    def __init__(self, name: str, header: Sequence[str], options: ListOptions, found: ListFormat) -> None:
        """Find the columns. Raises ``UsageError`` for a header without the required columns."""
        self._columns = find_columns(name, header, options.columns)
        self._name = name
        self._options = options
        self._found = found
        self.header = header
        self._positions = [(each.field, each.position) for each in self._columns]
        self.names = {each.field: each.name for each in self._columns}
        self._id_names = {each.name for each in self._columns if each.field in ID_COLUMNS}
        required = {"send_id", API_ID if API_ID in self.names else "campaign_id"}
        self._id_columns = [each for each in self._columns if each.field in required]
        self._required_cells = 1 + max(each.position for each in self._id_columns)

    def read_row(self, record: Record) -> Row | BadLine | None:
        """Return the row of a record, a bad line, or None if all its cells are empty or it is the header again."""
        line, lines, cells, problem, text, _, types = record
        if problem:
            return BadLine(self._name, line, "", problem, text, lines)
        if not self._id_names.isdisjoint(cells) and self._repeats_columns(record):
            return self._read_second_header(record)
        if len(cells) != len(self.header) and len(cells := self._fit_cells(record)) != len(self.header):
            return self._create_bad_line(record, self._describe_length(record)) if any(map(str.strip, cells)) else None
        fields = {field: _clean_cell(cells[position]) for field, position in self._positions}
        if not any(fields.values()) and not any(map(str.strip, cells)):
            return None
        for column in self._id_columns:
            if column.position in types:
                problem = f"is {types[column.position]} in Excel; format the column as text and enter its ids again"
                return self._create_bad_line(record, problem, column.name)
        return Row(line, lines, fields, self.names, zip(self.header, cells, strict=True))

    def _fit_cells(self, record: Record) -> list[str]:
        """Return as many cells as the header has, if only empty cells are spare or optional ones are missing."""
        cells, width = record.cells, len(self.header)
        if len(cells) > width:
            return cells if any(map(str.strip, cells[width:])) else cells[:width]
        return cells + [""] * (width - len(cells)) if record.ended and len(cells) >= self._required_cells else cells

    def _describe_length(self, record: Record) -> str:
        named = "--no-header names" if self._options.no_header else "the header has"
        problem = f"the line has {len(record.cells)} fields, but {named} {len(self.header)}"
        if not record.ended:
            problem += "; it is the last line and has no line end, so the file may be incomplete"
        return problem

    def _create_bad_line(self, record: Record, problem: str, field: str = "") -> BadLine:
        return BadLine(
            self._name, record.line, field, problem, ",".join(record.cells)[:MAX_QUOTED_CHARACTERS], record.lines
        )

    def _repeats_columns(self, record: Record) -> bool:
        """Return whether a record names the known columns.

        Raises ``UsageError`` if it is a header in another order. All rows after it would be misread.
        """
        cells = [normalize_name(cell) for cell in record.cells]
        moved = any(cells[each.position : each.position + 1] != [normalize_name(each.name)] for each in self._columns)
        if not moved:
            return True
        if len(ID_COLUMNS.intersection(find_field(cell, self._options.columns) or "" for cell in record.cells)) > 1:
            raise UsageError(
                f"{self._name}:{record.line}: a second header names the columns in another order; if two lists were "
                "joined, save each list as a separate file"
            )
        return False

    def _read_second_header(self, record: Record) -> BadLine | None:
        """Count a record that is equal to the header. Return a bad line for another header, or one after no header."""
        if self._options.no_header:
            return self._create_bad_line(record, "the line is a header, but --no-header was given")
        if list(map(normalize_name, record.cells)) != list(map(normalize_name, self.header)):
            return self._create_bad_line(record, "the line is a second header, whose ignored columns differ")
        self._found.repeated_headers += 1
        return None


def _clean_cell(cell: str) -> str:
    """Return a cell without blanks around it. A quote after a blank was not read as one by the rules of CSV."""
    text = cell.strip()
    if cell[:1] == " " and text[:1] == '"' == text[-1:] and len(text) > 1:
        return text[1:-1].replace('""', '"')
    return text
