"""What a field of a pair may hold: the one place that says whether an id or a time is usable. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from harvester.model import Pair
from harvester.sources.ids import ordinary, problem_of, unwrapped

OF_LISTS = (".csv", ".ndjson", ".jsonl", ".parquet")
"""How the names of lists of pairs end."""

REQUIRED = ("campaign_id", "send_id")
COLUMNS = (*REQUIRED, "sent_at", "workspace")
"""What can be said of a pair, in a file and in a message alike."""

_SHOWN_CHARACTERS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Unusable(Exception):  # noqa: N818 - it never leaves the sources, which make a ``BadLine`` of it
    """A record names no pair: which field is wrong and why."""

    def __init__(self, field: str, problem: str) -> None:
        """Keep both apart, as a ``BadLine`` does."""
        super().__init__(problem)
        self.field = field
        self.problem = problem


def shown(value: object) -> str:
    """Write a value for a sentence, cut where it is long: a cell may hold a megabyte."""
    text = f"{value!r}" if not isinstance(value, str) else f"{value[: _SHOWN_CHARACTERS + 1]!r}"
    return text if len(text) <= _SHOWN_CHARACTERS + 2 else f"{text[:_SHOWN_CHARACTERS]}..."


class InFuture(Unusable):
    """A time that is still to come, by the clock that was asked."""


def id_in(record: Mapping[str, object], field: str) -> str:
    """Give the id that a field holds, without blanks around it and a spreadsheet's ``="..."``. Raises ``Unusable``.

    Columns of a fixed width are filled up with blanks, and Braze answers zeros for an id that does not exist.
    """
    value = record.get(field)
    if not isinstance(value, str):
        raise Unusable(field, "missing" if value is None else "must be text: a number loses its leading zeros")
    if ordinary(value):
        return value
    value = unwrapped(value.strip()).strip()
    if value.lower() in REQUIRED:
        raise Unusable(field, f"{value!r} is the name of a column, not an id; the list repeats its header here")
    if problem := problem_of(value):
        raise Unusable(field, problem)
    return value


def pair_in(record: Mapping[str, object], workspaces: Sequence[str]) -> Pair:
    """Give the pair that a record names; where only one workspace is configured, none need be named.

    Raises ``Unusable``.
    """
    workspace = record.get("workspace")
    if workspace is None or workspace == "":
        workspace = workspaces[0] if len(workspaces) == 1 else None
    if not isinstance(workspace, str | None):
        raise Unusable("workspace", "must be text")
    if workspace not in workspaces:
        raise Unusable("workspace", f"{shown(workspace)} is none of the configured workspaces {', '.join(workspaces)}")
    return Pair(str(workspace), id_in(record, "campaign_id"), id_in(record, "send_id"))


def time_in(record: Mapping[str, object], field: str, *, latest: float) -> tuple[float | None, bool]:
    """Give the time that a field holds, None where it is left out, and whether it had to be taken for UTC.

    Raises ``Unusable``, also for a time after ``latest``.
    """
    given = record.get(field)
    if given is None or given == "":
        return None, False
    if isinstance(given, int | float):
        raise Unusable(field, "a number is ambiguous; give an ISO 8601 time such as 2026-11-20T08:00:00Z")
    if not isinstance(given, str):
        raise Unusable(field, "must be text, an ISO 8601 time such as 2026-11-20T08:00:00Z")
    try:
        when = datetime.fromisoformat(given)
    except ValueError:
        raise Unusable(field, f"{shown(given)} is no ISO 8601 time such as 2026-11-20T08:00:00Z") from None
    naive = when.tzinfo is None
    seconds = ((when.replace(tzinfo=UTC) if naive else when) - _EPOCH).total_seconds()
    check_time(field, given, seconds, latest=latest)
    return seconds, naive


def check_time(field: str, given: object, seconds: float, *, latest: float) -> None:
    """Raise ``Unusable`` unless a time, written as ``given``, lies between 1970 and ``latest``."""
    if seconds < 0:
        raise Unusable(field, f"{shown(given)} lies before 1970")
    if seconds > latest:
        raise InFuture(field, f"{shown(given)} lies in the future")
