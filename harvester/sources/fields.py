"""Parses the fields of a pair, in files and in messages. Pure."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from itertools import islice
from uuid import UUID

from harvester.model import Pair
from harvester.sources.id_checks import find_id_problem, is_ordinary_id, unwrap_spreadsheet_text

ID_FIELDS = ("campaign_id", "send_id")
PAIR_FIELDS = (*ID_FIELDS, "sent_at", "workspace")

MAX_EXACT_FLOAT = 2**53
"""This number and larger ones may have lost digits as floating-point numbers."""

_MAX_NAMES = 20
_MAX_VALUE_CHARACTERS = 100


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


def format_value(value: object) -> str:
    """Quote a value for a message, truncated if it is long. A cell may have a megabyte."""
    if isinstance(value, dict | list):  # they may be nested too deeply to be written
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value!r}" if not isinstance(value, str) else f"{value[: _MAX_VALUE_CHARACTERS + 1]!r}"
    return text if len(text) <= _MAX_VALUE_CHARACTERS + 2 else f"{text[:_MAX_VALUE_CHARACTERS]}..."


def parse_id(record: Mapping[str, object], field: str) -> str:
    """Return an id, without blanks around it and without a spreadsheet's ``="..."``. Raises ``InvalidField``.

    A whole number is accepted as its decimal text.

    Columns of a fixed width are padded with blanks. An id with blanks does not exist, and Braze returns zeros for it.
    """
    value = record.get(field)
    if not isinstance(value, str):
        value = _convert_id(field, value)
    if is_ordinary_id(value):
        return value
    value = unwrap_spreadsheet_text(value.strip()).strip()
    if value.lower() in ID_FIELDS:
        raise InvalidField(field, f"is {value!r}, which is the name of a column; the list repeats its header here")
    if problem := find_id_problem(value):
        raise InvalidField(field, problem)
    return value


def _convert_id(field: str, value: object) -> str:
    """Return the text of an id that is stored as a whole number, bytes or a UUID. Raises ``InvalidField``."""
    if value is None or value != value:  # noqa: PLR0124 - NaN, a missing value in pandas
        raise InvalidField(field, "is missing")
    if isinstance(value, bytes):
        return value.decode("ascii", "surrogateescape")
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    if isinstance(value, float | Decimal) and value % 1 == 0:
        if isinstance(value, float) and abs(value) >= MAX_EXACT_FLOAT:
            raise InvalidField(field, f"is {format_value(value)}, a number that lost digits; export it as text")
        return str(int(value))
    raise InvalidField(field, f"is {format_value(value)}, not text or a whole number; export it as text")


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
        known = f"the workspaces are: {_format_names(workspaces)}"
        if len(workspaces) == 1:
            known = f"the only workspace is {_format_names(workspaces)}"
            known += "; configure the other one (--config), or leave the field empty"
        raise InvalidField("workspace", f"is {format_value(workspace)}, which is not configured; {known}")
    return Pair(workspace, parse_id(record, "campaign_id"), parse_id(record, "send_id"))


def _format_names(workspaces: Collection[str]) -> str:
    """List the first workspaces: there may be thousands."""
    names = list(islice(workspaces, _MAX_NAMES))
    more = len(workspaces) - len(names)
    return ", ".join(names) + (f", and {more} more" if more > 0 else "")


def format_problem(field: str, problem: str) -> str:
    """Return the field and its problem as a sentence, such as ``send_id is empty``."""
    return f"{field} {problem}" if field else problem
