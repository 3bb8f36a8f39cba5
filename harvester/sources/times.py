"""Parses the time of a send: ISO 8601 in every spelling, and numbers that count from 1970. Pure.

A number is read as seconds, milliseconds, microseconds or nanoseconds, whichever makes it a time between 2000 and 2100.
These ranges do not overlap. Dates that begin with a day or a month are ambiguous, so they need a format.
"""

import contextlib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from harvester.sources.fields import InvalidField, format_value
from harvester.sources.id_checks import is_placeholder

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_NUMBER = 946_684_800
"""The year 2000 in Unix seconds. Smaller numbers are not read as times."""

LATEST_NUMBER = 4_102_444_800
"""The year 2100 in Unix seconds."""

UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""The units of numbers that count from 1970."""

_TIME_EXAMPLE = "an ISO 8601 time such as 2026-11-20T08:00:00Z"
_NUMBER = re.compile(r"\d{9,20}(\.\d*)?")
_SPELLINGS = (
    (re.compile(r"(Z|[+-]\d\d:?\d\d)\[[A-Z0-9/_+-]+\]$"), r"\1"),
    (re.compile(r"\s*(?:Z|UTC|GMT|[+-]00:?00\s+UTC)$"), "+00:00"),
    (re.compile(r"\s+(?=[+-]\d\d:?\d{0,2}(?::?\d\d)?$)"), ""),
    (re.compile(r"^(\d{4})/(\d\d)/(\d\d)"), r"\1-\2-\3"),
    (re.compile(r"^([\d-]+)(?=\+00:00$)"), r"\1T00:00"),
    (re.compile(r"\s+"), " "),
)
"""Spellings in upper case that ``datetime.fromisoformat`` does not accept, and what replaces them."""

_ORDINAL_DATE = re.compile(r"\d{4}-\d{3}")
_END_OF_DAY = re.compile(r"(.{8,10})[T ]24(?::?00){0,2}(?:[.,]0+)?((?:[+-].*)?)")
_AMBIGUOUS_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(\d{2,4})\b.*")
_ISO_DAY = re.compile(r"(?:\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)(?![^Tt\s])")
"""A day that nothing follows but a blank or T. Python accepts any character there, even the sign of a zone."""


class TimeInFuture(InvalidField):
    """A time that is after the current time."""


def parse_time(
    record: Mapping[str, object], field: str, *, latest: float, time_format: str | None = None
) -> tuple[float | None, bool]:
    """Return the time in a field and whether it has no zone (it is then in UTC). Without a time, return None.

    ``time_format`` is the format of times that are not in ISO 8601. Raises ``InvalidField``, and ``TimeInFuture`` if
    the time is after ``latest``.
    """
    value = record.get(field)
    if value is None or value == "" or value != value:  # noqa: PLR0124 - NaN, a missing value in pandas
        return None, False
    if isinstance(value, str):
        if is_placeholder(value.strip()):
            return None, False
        time = _parse_text(field, value.strip(), time_format)
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        time = _parse_number(field, value)
    elif isinstance(value, date):
        time = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
    else:
        raise InvalidField(field, f"is {format_value(value)}, not {_TIME_EXAMPLE}")
    if isinstance(time, datetime):
        naive = time.tzinfo is None
        seconds = ((time.replace(tzinfo=UTC) if naive else time) - _EPOCH).total_seconds()
    else:
        naive, seconds = False, time
    check_time(field, value, seconds, latest=latest)
    return seconds, naive


def check_time(field: str, value: object, seconds: float, *, latest: float) -> None:
    """Raise ``InvalidField`` unless ``seconds`` is between 1970 and ``latest``. ``value`` is the original text."""
    if seconds < 0:
        raise InvalidField(field, f"is {format_value(value)}, which is before 1970")
    if seconds > latest:
        raise TimeInFuture(field, f"is {format_value(value)}, which is in the future")


def _parse_text(field: str, text: str, time_format: str | None) -> datetime | float:
    if time_format is not None:
        with contextlib.suppress(ValueError):
            return datetime.strptime(text, time_format)  # noqa: DTZ007 - a time without a zone is in UTC
    if _NUMBER.fullmatch(text):
        return _parse_number(field, Decimal(text))
    try:
        if _ISO_DAY.match(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return _parse_unusual_text(text.upper())
    except (ValueError, OverflowError):
        raise _create_text_error(field, text, time_format) from None


def _parse_unusual_text(text: str) -> datetime:
    """Parse ISO 8601 in a spelling that Python does not accept. Raises ``ValueError``."""
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    if _ORDINAL_DATE.fullmatch(text):
        return datetime.strptime(text, "%Y-%j")  # noqa: DTZ007 - a time without a zone is in UTC
    if not _ISO_DAY.match(text):
        raise ValueError(text)
    if midnight := _END_OF_DAY.fullmatch(text):
        return datetime.fromisoformat(f"{midnight[1]}T00:00{midnight[2]}") + timedelta(days=1)
    return datetime.fromisoformat(text)


def _create_text_error(field: str, text: str, time_format: str | None) -> InvalidField:
    if time_format is not None:
        return InvalidField(
            field, f"is {format_value(text)}, neither {_TIME_EXAMPLE} nor in the format {time_format!r}"
        )
    if date_found := _AMBIGUOUS_DATE.fullmatch(text):
        separator = date_found[1]
        year = "%Y" if len(date_found[2]) == 4 else "%y"
        of_day = " %H:%M:%S" if text.count(":") == 2 else " %H:%M" if ":" in text else ""
        formats = (
            f"{first}{separator}{second}{separator}{year}{of_day}" for first, second in (("%d", "%m"), ("%m", "%d"))
        )
        return InvalidField(
            field,
            f"is {format_value(text)}, in which day and month could be swapped; write {_TIME_EXAMPLE}, or use "
            f"--time-format with {' or '.join(map(repr, formats))}",
        )
    return InvalidField(field, f"is {format_value(text)}, not {_TIME_EXAMPLE}; for other formats use --time-format")


def _parse_number(field: str, value: float | Decimal) -> datetime | float:
    """Return a number as Unix seconds; the date if it has the form 20261124. Raises ``InvalidField``."""
    for per_second in UNITS.values():
        if EARLIEST_NUMBER * per_second <= value < LATEST_NUMBER * per_second:
            return float(value / per_second)
    if value < 0:
        raise InvalidField(field, f"is {format_value(value)}, which is before 1970")
    if value % 1 == 0 and len(text := str(int(value))) == len("20261124"):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text)
    raise InvalidField(
        field,
        f"is {format_value(value)}, which is no time between 2000 and 2100 in seconds, milliseconds, microseconds or "
        f"nanoseconds since 1970; write {_TIME_EXAMPLE}",
    )
