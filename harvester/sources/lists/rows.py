"""The rows of a list, and what is found out about the list while they are read."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harvester.text import printable

MAX_QUOTED_CHARACTERS = 500
"""The length of the quote of a bad line."""

_MAX_IGNORED_NAMES = 5
_MAX_NAME_CHARACTERS = 32


class Row(NamedTuple):
    """A row: its first line, its number of lines, its known fields, and all its fields for an error report.

    ``columns`` maps the fields to the names of their columns in the list.
    """

    line: int
    lines: int
    fields: dict[str, Any]
    columns: Mapping[str, str]
    all_fields: Iterable[tuple[str, object]]

    def to_json(self) -> str:
        """Return the row as JSON, truncated if it is long, or an empty text if it is nested too deeply."""
        try:  # orjson would refuse the surrogates that replace bytes that are not UTF-8
            return json.dumps(dict(self.all_fields), ensure_ascii=False, default=str)[:MAX_QUOTED_CHARACTERS]
        except RecursionError:
            return ""


@dataclass(slots=True)
class ListFormat:
    """What was found out about a list: its kind with details such as the separator, and the columns of its fields.

    ``repeated_headers`` counts the rows that are equal to the header, as in joined lists.
    """

    details: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    ignored: str = ""
    repeated_headers: int = 0

    def describe(self) -> str:
        """Return the kind with its details, and the columns that are read and ignored."""
        names = {field: printable(name) for field, name in self.columns.items()}
        columns = [name if name == field else f"{name} as {field}" for field, name in names.items()]
        return ", ".join(self.details) + (f"; columns {', '.join(columns)}" if columns else "") + self.ignored

    def set_columns(self, columns: Mapping[str, str], names: Iterable[str]) -> None:
        """Store the columns of the fields, and the first ones of ``names`` that are ignored."""
        self.columns = dict(columns)
        read = set(columns.values())
        ignored = [name for name in names if name.strip() and name not in read]
        shown = ", ".join(printable(name)[:_MAX_NAME_CHARACTERS] for name in ignored[:_MAX_IGNORED_NAMES])
        more = f" and {len(ignored) - _MAX_IGNORED_NAMES} more" if len(ignored) > _MAX_IGNORED_NAMES else ""
        self.ignored = f"; ignored columns {shown}{more}" if ignored else ""
