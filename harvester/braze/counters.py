"""Decides which members of a response become columns. Pure.

Parts never change, so they must stay readable whatever a response contains. Readers of NDJSON create a column for every
member: after one response with 20,000 unknown counters, the table would always have 20,000 columns. A counter therefore
has a column only if Braze documents it, or if its name looks like a documented one. All others are kept as JSON text in
the column ``unrecognized`` of their row.
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
    new = {name for name in names - DOCUMENTED_COUNTERS - new_counters if _COLUMN.fullmatch(name)} - _RESERVED
    if len(new_counters) + len(new) <= MAX_NEW_COUNTERS:
        new_counters |= new
    return names & (DOCUMENTED_COUNTERS | new_counters)


def fold_row(row: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    """Return a row whose members without a column, and lists and objects, are JSON text in ``unrecognized``."""
    kept = {name: value for name, value in row.items() if name in columns and not isinstance(value, list | dict)}
    rest = {name: value for name, value in row.items() if name not in kept}
    return kept | {UNRECOGNIZED: orjson.dumps(rest).decode()} if rest else row
