"""Finds the columns of a pair in the header of a list, whatever the case and the separators of their names.

``ACCEPTED_NAMES`` is the only table of names. ``docs/lists.md`` contains the same table, which a test compares.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from harvester.errors import UsageError
from harvester.sources.fields import ID_FIELDS
from harvester.text import printable

API_ID = "campaign_api_id"
"""The campaign id in Braze's Snowflake share. The share's ``campaign_id`` is an internal id that no API accepts."""

CANVAS_COLUMNS = ("canvas_id", "canvas_api_id")

ACCEPTED_NAMES: Mapping[str, Sequence[str]] = {
    "campaign_id": ("campaign_id", "campaign_identifier", "braze_campaign_id"),
    API_ID: (API_ID, "campaign_api_identifier", "api_campaign_id"),
    "send_id": ("send_id", "send_identifier", "braze_send_id"),
    "sent_at": (
        "sent_at", "sent_time", "sent_on", "sent_date", "sent_datetime", "sent_timestamp", "date_sent", "time_sent",
        "send_at", "send_time", "send_date", "send_datetime", "send_timestamp", "time", "timestamp", "event_time",
    ),
    "workspace": ("workspace", "workspace_name"),
    "canvas_id": ("canvas_id",),
    "canvas_api_id": ("canvas_api_id",),
}  # fmt: skip
"""The names of the column of each field. Case, blanks, underscores, hyphens and dots do not matter."""

FIELDS = tuple(ACCEPTED_NAMES)
ID_COLUMNS = frozenset((*ID_FIELDS, API_ID))

_IGNORED_CHARACTERS = str.maketrans("", "", " \t_-.#\ufeff")
_MAX_HEADER_CHARACTERS = 200
_MAX_NAME_CHARACTERS = 64
_MAX_NAMES = 10


def normalize_name(name: str) -> str:
    """Return the form in which two spellings of a name are equal: ``Campaign ID`` and ``campaignId``."""
    return name.translate(_IGNORED_CHARACTERS).casefold()


_FIELDS_BY_NAME = {normalize_name(name): field for field, names in ACCEPTED_NAMES.items() for name in names}


class Column(NamedTuple):
    """The column of a field: its position and its name in the list."""

    field: str
    position: int
    name: str


class AmbiguousColumn(Exception):  # noqa: N818 - it never leaves the sources
    """Two columns fit a field. ``positions`` contains their positions, and ``names`` their names."""

    def __init__(self, field: str, positions: Sequence[int], names: Sequence[str]) -> None:
        """Store the field and the columns."""
        super().__init__(field)
        self.field = field
        self.positions = positions
        self.names = [printable(name)[:_MAX_NAME_CHARACTERS] for name in names]


def find_field(name: str, columns: Mapping[str, str] | None = None) -> str | None:
    """Return the field of a column, or None. ``columns`` contains the names that the user gave."""
    if columns:
        wanted = normalize_name(name)
        for field, given in columns.items():
            if normalize_name(given) == wanted:
                return field
    known = _FIELDS_BY_NAME.get(normalize_name(name))
    return None if columns and known in columns else known


def list_columns(names: Iterable[str], columns: Mapping[str, str] | None = None) -> list[Column]:
    """Return the known columns among ``names``. Raises ``AmbiguousColumn`` if two columns fit one field.

    A column that is spelled exactly as in ``columns`` fits better than other spellings of its name.
    """
    names = list(names)
    exact_names = {field: name for field, name in (columns or {}).items() if name in names}
    found: dict[str, Column] = {}
    for position, name in enumerate(names):
        field = find_field(name, columns)
        if field is None or exact_names.get(field, name) != name:
            continue
        if field in found:
            other = found[field]
            raise AmbiguousColumn(field, (other.position, position), (other.name, name))
        found[field] = Column(field, position, name)
    return list(found.values())


def contains_pair(columns: Iterable[Column]) -> bool:
    """Return whether the columns of a list contain both ids of a pair."""
    fields = {each.field for each in columns}
    return "send_id" in fields and bool(fields & {"campaign_id", API_ID})


def find_columns(list_name: str, header: Sequence[str], columns: Mapping[str, str] | None = None) -> list[Column]:
    """Return the known columns of a header. Raises ``UsageError`` if a required one is missing or two fit a field."""
    try:
        found = list_columns(header, columns)
    except AmbiguousColumn as error:
        first, second = (position + 1 for position in error.positions)
        raise UsageError(
            f"{list_name}: two columns of the header fit {error.field}: {error.names[0]!r} is column {first}, and "
            f"{error.names[1]!r} is column {second}; remove one, or choose one with --column {error.field}=NAME"
        ) from None
    fields = {each.field for each in found}
    missing = [field for field in (columns or {}) if field not in fields]
    if missing:
        raise UsageError(
            f"{list_name}: the header contains no column {(columns or {})[missing[0]]!r}, which --column names for "
            f"{missing[0]}; found: {_format_header(header)}"
        )
    if not contains_pair(found):
        required = " and ".join(ID_FIELDS)
        names = ",".join([*ID_FIELDS, *["x"] * (len(header) - len(ID_FIELDS))][:_MAX_NAMES])
        more = f",... ({len(header)} names)" if len(header) > _MAX_NAMES else ""
        raise UsageError(
            f"{list_name}: the header must contain the columns {required}; found: {_format_header(header)}. If the "
            "columns have other names, use --column send_id=NAME; if the list has no header, name its columns in their "
            f"order: --no-header {names}{more}"
        )
    return found


def _format_header(header: Sequence[str]) -> str:
    names = (repr(name) if any(mark in name for mark in ",;\t|") else name for name in header)
    return printable(", ".join(names))[:_MAX_HEADER_CHARACTERS] or "none"
