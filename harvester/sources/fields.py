"""What a field of a pair may hold: the one place that says whether an id or a time is usable. Pure."""

from collections.abc import Mapping

from harvester.model import MAX_ID_CHARACTERS

OF_LISTS = (".csv", ".ndjson", ".jsonl", ".parquet")
"""How the names of lists of pairs end."""

REQUIRED = ("campaign_id", "send_id")


class Unusable(Exception):  # noqa: N818 - it never leaves the sources, which make a ``BadLine`` of it
    """A record names no pair: which field is wrong and why."""

    def __init__(self, field: str, problem: str) -> None:
        """Keep both apart, as a ``BadLine`` does."""
        super().__init__(problem)
        self.field = field
        self.problem = problem


def id_in(record: Mapping[str, object], field: str) -> str:
    """Give the id that a field holds, as it is. Raises ``Unusable``."""
    value = record.get(field)
    if not isinstance(value, str):
        raise Unusable(field, "missing" if value is None else "must be text: a number loses its leading zeros")
    if not value:
        raise Unusable(field, "empty")
    if len(value) > MAX_ID_CHARACTERS or not value.isascii() or "\0" in value:
        raise Unusable(field, f"must be 1 to {MAX_ID_CHARACTERS} ASCII characters without NUL")
    return value


def check_time(field: str, given: object, seconds: float, *, latest: float) -> None:
    """Raise ``Unusable`` unless a time, written as ``given``, lies between 1970 and ``latest``."""
    if seconds < 0:
        raise Unusable(field, f"{given!r} lies before 1970")
    if seconds > latest:
        raise Unusable(field, f"{given!r} lies in the future")
