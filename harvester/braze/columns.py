"""Decides which members of a response become columns, and their types. Pure.

Parts never change, so they must stay readable whatever a response contains. Readers of NDJSON create a column for every
member: after one response with 20,000 unknown counters, the table would always have 20,000 columns. A counter therefore
has a column only if Braze documents it, or if its name looks like a documented one. All others are kept as JSON text in
the column ``unrecognized`` of their row.

The type of a column depends only on its name, so that it is the same in every part: a counter is a 64-bit integer, or a
decimal if its name contains ``revenue``.
"""

import re
from typing import Any

import orjson

FIXED_COLUMNS = (
    "workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id",
    "reading", "captured_at", "verdict", "batch_id",
)  # fmt: skip
"""The columns at the beginning of every row; counters follow under Braze's own names."""

DOCUMENTED_COUNTERS = frozenset((
    "sent", "delivered", "undelivered", "delivery_failed", "direct_opens", "total_opens", "bounces", "body_clicks",
    "revenue", "unique_recipients", "conversions", "conversions_by_send_time", "conversions1",
    "conversions1_by_send_time", "conversions2", "conversions2_by_send_time", "conversions3",
    "conversions3_by_send_time", "opens", "machine_open", "unique_opens", "machine_amp_open", "clicks",
    "unique_clicks", "unsubscribes", "reported_spam", "enrolled", "sent_to_carrier", "rejected", "opt_out", "help",
    "failed", "read", "errors", "recipients", "impressions", "total_impressions", "unique_impressions",
    "total_clicks", "total_dismissals", "unique_dismissals", "first_button_clicks", "second_button_clicks",
))  # fmt: skip
"""Documented for this endpoint or for ``/campaigns/data_series``, or recorded on a real send."""

INTEGER_LIMIT = 2**63
"""Readers store counters as signed 64-bit integers. JSON decoding rounds twice as large integers to floats."""

MAX_NEW_COUNTERS = 100
"""The most new names that become columns in a process, over all responses of a workspace. A limit for each response
would not help: many responses with a few new names each add up to many columns."""

UNRECOGNIZED = "unrecognized"
"""The column for all other members: the text of a JSON object."""

DAY, VARIATION, CHANNELS = "day", "variation", "messages"
"""Names in ``unrecognized`` for a day, a variation or the channels of a day that have an unexpected shape."""

_RESERVED = {
    *FIXED_COLUMNS, UNRECOGNIZED, DAY, VARIATION, CHANNELS, "ending_at", "since",
    "captured_date",  # readers create a column from the folder's name
}  # fmt: skip
_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Names differ in more than case, because many readers treat ``Sent`` and ``sent`` as one column."""


def find_columns(names: set[str], new_counters: set[str]) -> set[str]:
    """Return the names of a response that are columns.

    ``new_counters`` contains the new names that became columns before. The new names of this response are added, up to
    the limit.
    """
    new = {name for name in names - DOCUMENTED_COUNTERS - new_counters if is_column(name)}
    if len(new_counters) + len(new) <= MAX_NEW_COUNTERS:
        new_counters |= new
    return names & (DOCUMENTED_COUNTERS | new_counters)


def is_column(name: str) -> bool:
    """Return whether a counter of this name can be a column."""
    return name not in _RESERVED and _COLUMN.fullmatch(name) is not None


def is_decimal(name: str) -> bool:
    """Return whether a counter is a decimal. ``revenue`` is the only decimal that Braze documents."""
    return "revenue" in name


def fold_row(row: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    """Return a row whose values have the types of their columns. All others are JSON text in ``unrecognized``."""
    kept: dict[str, int | float | None] = {}
    rest: dict[str, Any] = {}
    for name, value in row.items():
        number = _convert(name, value) if name in columns else None
        if number is not None or (value is None and name in columns):
            kept[name] = number
        else:
            rest[name] = value
    return kept | {UNRECOGNIZED: orjson.dumps(rest).decode()} if rest else kept


def _convert(name: str, value: Any) -> int | float | None:
    """Return a value in the type of its column, None if it does not have this type."""
    if type(value) not in (int, float):
        return None
    if is_decimal(name):
        return float(value)
    if type(value) is float and name in DOCUMENTED_COUNTERS and value.is_integer():
        value = int(value)
    return value if type(value) is int and -INTEGER_LIMIT <= value < INTEGER_LIMIT else None
