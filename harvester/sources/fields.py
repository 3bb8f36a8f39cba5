"""Parses the fields of a pair, in files and in messages. Pure."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from itertools import islice

from harvester.model import Pair
from harvester.sources.id_checks import find_id_problem, is_ordinary_id, unwrap_spreadsheet_text

LIST_SUFFIXES = (".csv", ".ndjson", ".jsonl", ".parquet")
"""The suffixes of lists of pairs."""

ID_FIELDS = ("campaign_id", "send_id")
PAIR_FIELDS = (*ID_FIELDS, "sent_at", "workspace")

_MAX_NAMES = 20
_MAX_VALUE_CHARACTERS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_EXAMPLE = "an ISO 8601 time such as 2026-11-20T08:00:00Z"


class InvalidField(Exception):  # noqa: N818 - it never leaves the sources, which turn it into a ``BadLine``
    """A record contains no valid pair. ``field`` is the invalid field, and ``problem`` says why.

    ``problem`` continues a sentence that begins with the name of the field, such as ``is missing``. If the whole record
    is invalid, ``field`` is empty and ``problem`` is a whole sentence.
    """

    def __init__(self, field: str, problem: str) -> None:
        """Store the field and the problem separately, as ``BadLine`` does."""
        super().__init__(problem)
        self.field = field
        self.problem = problem


class TimeInFuture(InvalidField):
    """A time that is after the current time."""


def format_value(value: object) -> str:
    """Quote a value for a message, truncated if it is long. A cell may have a megabyte."""
    text = f"{value!r}" if not isinstance(value, str) else f"{value[: _MAX_VALUE_CHARACTERS + 1]!r}"
    return text if len(text) <= _MAX_VALUE_CHARACTERS + 2 else f"{text[:_MAX_VALUE_CHARACTERS]}..."


def parse_id(record: Mapping[str, object], field: str) -> str:
    """Return an id, without blanks around it and without a spreadsheet's ``="..."``. Raises ``InvalidField``.

    Columns of a fixed width are padded with blanks. An id with blanks does not exist, and Braze returns zeros for it.
    """
    value = record.get(field)
    if not isinstance(value, str):
        if value is None:
            raise InvalidField(field, "is missing")
        raise InvalidField(field, "must be text, because a number loses its leading zeros; export it as text")
    if is_ordinary_id(value):
        return value
    value = unwrap_spreadsheet_text(value.strip()).strip()
    if value.lower() in ID_FIELDS:
        raise InvalidField(field, f"is {value!r}, which is the name of a column; the list repeats its header here")
    if problem := find_id_problem(value):
        raise InvalidField(field, problem)
    return value


def parse_pair(record: Mapping[str, object], workspaces: Collection[str]) -> Pair:
    """Return the pair of a record. Its workspace is optional if only one is configured. Raises ``InvalidField``."""
    workspace = record.get("workspace")
    if workspace is None or workspace == "":
        if len(workspaces) != 1:
            raise InvalidField("workspace", f"is missing; name one of: {_format_names(workspaces)}")
        (workspace,) = workspaces
    if not isinstance(workspace, str):
        raise InvalidField("workspace", "must be text")
    if workspace not in workspaces:
        known = _format_names(workspaces)
        problem = f"is {format_value(workspace)}, which is not configured; the workspaces are: {known}"
        raise InvalidField("workspace", problem)
    return Pair(workspace, parse_id(record, "campaign_id"), parse_id(record, "send_id"))


def _format_names(workspaces: Collection[str]) -> str:
    """List the first workspaces: there may be thousands."""
    names = list(islice(workspaces, _MAX_NAMES))
    more = len(workspaces) - len(names)
    return ", ".join(names) + (f", and {more} more" if more > 0 else "")


def parse_time(record: Mapping[str, object], field: str, *, latest: float) -> tuple[float | None, bool]:
    """Return the time in a field and whether it has no zone (it is then in UTC). Without a time, return None.

    Raises ``InvalidField``, and ``TimeInFuture`` if the time is after ``latest``.
    """
    value = record.get(field)
    if value is None or value == "":
        return None, False
    if isinstance(value, int | float):
        raise InvalidField(field, f"must not be a number, which is ambiguous; write {_TIME_EXAMPLE}")
    if not isinstance(value, str):
        raise InvalidField(field, f"must be text, {_TIME_EXAMPLE}")
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidField(field, f"is {format_value(value)}, not {_TIME_EXAMPLE}") from None
    naive = time.tzinfo is None
    seconds = ((time.replace(tzinfo=UTC) if naive else time) - _EPOCH).total_seconds()
    check_time(field, value, seconds, latest=latest)
    return seconds, naive


def check_time(field: str, value: object, seconds: float, *, latest: float) -> None:
    """Raise ``InvalidField`` unless ``seconds`` is between 1970 and ``latest``. ``value`` is the original text."""
    if seconds < 0:
        raise InvalidField(field, f"is {format_value(value)}, which is before 1970")
    if seconds > latest:
        raise TimeInFuture(field, f"is {format_value(value)}, which is in the future")


def format_problem(field: str, problem: str) -> str:
    """Return the field and its problem as a sentence, such as ``send_id is empty``."""
    return f"{field} {problem}" if field else problem
