"""Turns a response into a capture. Pure. Only this module and ``rows`` depend on the shape of Braze's JSON.

The shape (documentation of the endpoint, and one recorded response) is an object with ``message`` equal to ``success``
and ``data``, a list with one element per day: ``time``, ``messages`` by channel (each a list of variations), and the
day's totals. Days are zero-filled, counters that do not apply are absent, and new channels and counters can appear. No
counter is therefore required, and none is dropped.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from harvester.braze.rows import Rows, encode_members
from harvester.errors import ExchangeError
from harvester.model import Captured, Reading, Verdict

MAX_NODES = 200_000
"""A response with more lists and objects is implausible. Each of them takes a hundred times its bytes in memory."""

_LARGE_BYTES = 1024 * 1024


def parse_days(body: bytes) -> list[Any]:
    """Return the days of a usable response.

    Raises ``ExchangeError`` for anything else that a 200 may contain: broken or truncated JSON, an HTML page, a message
    other than success. An unusable response says nothing about the pair.
    """
    if len(body) > _LARGE_BYTES and body.count(b"{") + body.count(b"[") > MAX_NODES:
        raise ExchangeError("oversized", f"the response has more than {MAX_NODES} lists and objects")
    try:
        response = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ExchangeError("unparsable", str(error)) from None
    match response:
        case {"message": "success", "data": list(days)}:
            return days
    raise ExchangeError("no_success", "the status is 200, but the body is not a success with a list of days")


def build_capture(
    body: bytes, reading: Reading, *, batch_id: str, captured_at: float, new_counters: set[str]
) -> Captured:
    """Turn the body of a 200 into a capture: its verdict and its encoded rows. Raises as ``parse_days`` does.

    ``new_counters`` are the undocumented names that became columns so far; those of this response are added.
    """
    try:
        return _capture(parse_days(body), reading, batch_id, captured_at, new_counters)
    except orjson.JSONEncodeError as error:  # orjson reads JSON four times as deep as it can write
        raise ExchangeError("unparsable", str(error)) from None


def encode_raw_row(body: bytes, reading: Reading, capture: Captured, *, batch_id: str) -> bytes:
    """Return the row that keeps a response unchanged, spaces included, as text in ``answer``."""
    pair = reading.pair
    members = encode_members(
        workspace=pair.workspace,
        campaign_id=pair.campaign_id,
        send_id=pair.send_id,
        reading=reading.name,
        captured_at=_format_time(capture.captured_at),
        verdict=capture.verdict,
        batch_id=batch_id,
        answer=body.decode(),
    )
    return b"{" + members + b"}\n"


def _capture(days: list[Any], reading: Reading, batch_id: str, captured_at: float, new_counters: set[str]) -> Captured:
    rows = Rows(reading.pair, new_counters)
    for day in days:
        rows.add_day(day)
    verdict = Verdict.ACTIVITY if rows.check_activity() else Verdict.ZERO if days else Verdict.EMPTY
    shared = encode_members(
        reading=reading.name, captured_at=_format_time(captured_at), verdict=verdict, batch_id=batch_id
    )
    requested = encode_members(ending_at=_format_time(reading.ending_at), since=_format_time(reading.since))
    encoded = rows.encode(shared, requested)
    return Captured(verdict, captured_at, encoded, row_count=len(rows.counters) + 1, drift=rows.drift)


def _format_time(seconds: float) -> str:
    """Return a time as UTC text with milliseconds."""
    whole = int(seconds)
    return f"{_format_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=16)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
