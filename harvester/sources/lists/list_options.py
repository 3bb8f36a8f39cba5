"""What a user says about lists that their content leaves open: names of columns, a missing header, the format of times.

The commands that read lists share these options.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from harvester.errors import UsageError
from harvester.sources.columns import FIELDS, AmbiguousColumn, contains_pair, find_field, list_columns
from harvester.sources.fields import ID_FIELDS

_EXAMPLE_TIME = datetime(2026, 11, 24, 8, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Options for all lists of a command.

    ``columns`` maps fields to the names of their columns. ``no_header`` contains the names of the columns of a list
    without a header. ``time_format`` is a format of ``datetime.strptime`` for times that are not in ISO 8601. ``sheet``
    is the sheet of a workbook.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    no_header: Sequence[str] = ()
    time_format: str | None = None
    sheet: str | None = None

    @classmethod
    def parse(
        cls,
        columns: Sequence[str] = (),
        no_header: str | None = None,
        time_format: str | None = None,
        sheet: str | None = None,
    ) -> Self:
        """Parse options as a user writes them: ``FIELD=NAME``, and names separated by commas. Raises ``UsageError``."""
        named: dict[str, str] = {}
        for each in columns:
            field_name, equals, name = each.partition("=")
            known = find_field(field_name)
            if not (known and equals and name.strip()):
                raise UsageError(f"--column {each!r}: write FIELD=NAME; the fields are {', '.join(FIELDS)}")
            if known in named:
                raise UsageError(f"--column names {known} twice")
            named[known] = name.strip()
        names = [name.strip() for name in no_header.split(",")] if no_header is not None else []
        if no_header is not None:
            _check_names(names, named)
        if time_format is not None:
            _check_time_format(time_format)
        return cls(named, names, time_format, sheet)


def _check_names(names: Sequence[str], columns: Mapping[str, str]) -> None:
    """Raise ``UsageError`` unless the names of the columns of a list contain those of a pair once."""
    try:
        found = list_columns(names, columns)
    except AmbiguousColumn as error:
        raise UsageError(f"--no-header names {error.field} twice; write x for a column that is not needed") from None
    if not contains_pair(found):
        raise UsageError(f"--no-header {','.join(names)!r}: the names must include {' and '.join(ID_FIELDS)}")


def _check_time_format(time_format: str) -> None:
    """Raise ``UsageError`` unless a format describes at least a day, in the same way on every machine."""
    if "%Z" in time_format:
        raise UsageError(f"--time-format {time_format!r}: the meaning of %Z depends on the machine; use %z")
    try:
        text = _EXAMPLE_TIME.strftime(time_format)
        parsed = datetime.strptime(text, time_format)  # noqa: DTZ007 - only the date is compared
    except (ValueError, re.error) as error:  # a directive that occurs twice is an error of the pattern
        raise UsageError(f"--time-format {time_format!r}: {error}; write for example %d/%m/%Y %H:%M") from None
    if parsed.date() != _EXAMPLE_TIME.date():
        raise UsageError(f"--time-format {time_format!r} contains no date; write for example %d/%m/%Y %H:%M")
