"""An answer becomes rows: pure, and the only place that knows the shape of Braze's JSON.

The shape (documentation of the endpoint, and one recorded answer): an object with ``message`` equal to
``success`` and ``data``, a list with one element per day: ``time``, ``messages`` by channel (each a list of
variations), and the day's totals beside them. Days are zero-filled, counters that do not apply are absent,
and neither channels nor counters are a closed set. So nothing known is required and nothing unknown is
dropped: a value of an unexpected kind passes through and the answer is marked as *drift*. One nested deeper than
readers of JSON can follow passes through as text.
"""

from collections.abc import Container
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from harvester.errors import ExchangeError
from harvester.model import Captured, Pair, Reading, Verdict

FIXED_COLUMNS = (
    "workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id",
    "reading", "captured_at", "verdict", "batch_id",
)  # fmt: skip
"""The columns every row begins with; counters follow under Braze's own names."""

MAX_NODES = 200_000
"""So many lists and objects make no plausible answer, and each takes a hundred times the memory of its bytes."""

_LARGE_BYTES = 1024 * 1024
_FIXED = frozenset(FIXED_COLUMNS)
_MOST_LEVELS = 100
"""DuckDB refuses a line nested deeper than 128 levels, and with it the whole part."""

_ROUNDED_FROM = 2**63
"""JSON decoding rounds integers from about here on to floats; such a counter is not exact."""


def days_of(body: bytes) -> list[Any]:
    """Give the days of a usable answer.

    Raises ``ExchangeError`` for anything else a 200 may carry: broken or truncated JSON, an HTML page,
    another message than success. Such an answer says nothing about the pair.
    """
    if len(body) > _LARGE_BYTES and body.count(b"{") + body.count(b"[") > MAX_NODES:
        raise ExchangeError("oversized", f"the answer holds more than {MAX_NODES} lists and objects")
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ExchangeError("unparsable", str(error)) from None
    if not isinstance(answer, dict) or answer.get("message") != "success" or not isinstance(answer.get("data"), list):
        raise ExchangeError("no_success", "a 200 without message = success and a list of days")
    days: list[Any] = answer["data"]
    return days


def captured(body: bytes, reading: Reading, *, batch_id: str, captured_at: float) -> Captured:
    """Turn the body of a 200 into a capture: its verdict and its encoded rows. Raises as ``days_of`` does."""
    try:
        return _capture(days_of(body), reading, batch_id, captured_at)
    except orjson.JSONEncodeError as error:  # JSON may be read four times as deep as it can be written
        raise ExchangeError("unparsable", str(error)) from None


def raw_row(body: bytes, reading: Reading, capture: Captured, *, batch_id: str) -> bytes:
    """Give the row that keeps an answer as it came, as text in ``answer``: not even its spaces are lost."""
    pair = reading.pair
    members = _members(
        workspace=pair.workspace, campaign_id=pair.campaign_id, send_id=pair.send_id, reading=reading.name,
        captured_at=_iso(capture.captured_at), verdict=capture.verdict, batch_id=batch_id, answer=body.decode(),
    )  # fmt: skip
    return b"{" + members + b"}\n"


def _capture(days: list[Any], reading: Reading, batch_id: str, captured_at: float) -> Captured:
    rows = _Rows(reading.pair)
    for day in days:
        rows.add_day(day)
    verdict = Verdict.ACTIVITY if rows.active() else Verdict.ZERO if days else Verdict.EMPTY
    rows.add(b"null", _place("capture"), {"ending_at": _iso(reading.ending_at), "since": _iso(reading.since)})
    shared = _members(reading=reading.name, captured_at=_iso(captured_at), verdict=verdict, batch_id=batch_id)
    return Captured(verdict, captured_at, rows.encoded(shared), row_count=len(rows.counters), drift=rows.drift)


class _Rows:
    """The rows of one answer: date, place and counters of each. This is the hot path.

    Looking at the counters and putting the rows together is done for all at once, in C, and only where something is
    odd row by row.
    """

    def __init__(self, pair: Pair) -> None:
        members = _members(workspace=pair.workspace, campaign_id=pair.campaign_id, send_id=pair.send_id)
        self._head = b"{" + members + b',"date":'
        self._dates: list[bytes] = []
        self._places: list[bytes] = []
        self.counters: list[dict[str, Any]] = []
        self.drift = False

    def add_day(self, day: object) -> None:
        """Add a row for each variation of a day and one for its totals, taking the parsed day apart."""
        if not isinstance(day, dict):
            self.drift = True
            self.add(b"null", _place("day"), {"unrecognized": day})
            return
        date, channels = day.pop("time", None), day.pop("messages", None)
        if not isinstance(date, str) or not isinstance(channels, dict):
            self.drift = True
            date = _readable(date)
        encoded_date = orjson.dumps(date)
        if isinstance(channels, dict):
            for channel, variations in channels.items():
                for variation in variations if isinstance(variations, list) else (variations,):
                    if isinstance(variation, dict):
                        self.add(encoded_date, self._place_of(channel, variation), variation)
                    else:
                        self.drift = True
                        self.add(encoded_date, _place("variation", channel), {"unrecognized": variation})
        elif channels is not None:
            day[_free("unrecognized", day)] = channels
        self.add(encoded_date, _place("day"), day)

    def _place_of(self, channel: str, variation: dict[str, Any]) -> bytes:
        """Tell where a variation's row belongs, taking its names out of it."""
        name, api_id = variation.pop("variation_name", None), variation.pop("variation_api_id", None)
        try:
            return _place("variation", channel, name, api_id)
        except TypeError:  # a name that is a list or an object
            self.drift = True
            return _place("variation", channel, orjson.dumps(name).decode(), orjson.dumps(api_id).decode())

    def add(self, date: bytes, place: bytes, counters: dict[str, Any]) -> None:
        """Add one row."""
        self._dates.append(date)
        self._places.append(place)
        self.counters.append(counters)

    def active(self) -> bool:
        """Tell whether anything was counted, and note whether any counter is no plain, exact number."""
        try:
            totals = [sum(counters.values()) for counters in self.counters]
        except TypeError:
            self.drift = True
            self.counters = [{name: _readable(value) for name, value in counters.items()} for counters in self.counters]
            return any(_counts(value) for counters in self.counters for value in counters.values())
        self.drift = self.drift or max(totals, default=0) >= _ROUNDED_FROM
        return any(totals) or any(any(counters.values()) for counters in self.counters)

    def encoded(self, shared: bytes) -> bytes:
        """Give all rows, one line each; ``shared`` stands in each between its place and its counters."""
        counters = self.counters
        if not _FIXED.isdisjoint(set().union(*counters)):
            self.drift = True
            counters = [
                {_free(name, row) if name in _FIXED else name: value for name, value in row.items()} for row in counters
            ]
        between = {place: place + b"," + shared for place in set(self._places)}
        with_comma = {place: each + b"," for place, each in between.items()}
        pieces = [b"\n" + self._head] * (4 * len(counters))
        pieces[0] = self._head
        pieces[1::4] = self._dates
        pieces[2::4] = [
            (with_comma if row else between)[place] for place, row in zip(self._places, counters, strict=True)
        ]
        pieces[3::4] = [orjson.dumps(row)[1:] for row in counters]
        pieces.append(b"\n")
        return b"".join(pieces)


def _nested(value: object, levels: int) -> bool:
    """Tell whether a value is nested deeper than so many levels."""
    if not isinstance(value, list | dict):
        return False
    inner = value if isinstance(value, list) else value.values()
    return levels == 0 or any(_nested(each, levels - 1) for each in inner)


def _readable(value: Any) -> Any:
    """Give a value as it is, or as JSON in text where readers could not follow it."""
    return orjson.dumps(value).decode() if _nested(value, _MOST_LEVELS) else value


def _counts(value: object) -> bool:
    """Tell whether a value of whatever kind says that something happened: anything but zeros and nothing."""
    if isinstance(value, str):
        try:
            return float(value) != 0
        except ValueError:
            return bool(value.strip())
    if isinstance(value, list | dict):
        return any(map(_counts, value if isinstance(value, list) else value.values()))
    return bool(value)


def _free(name: str, taken: Container[str]) -> str:
    """Give a name like ``name`` that none of the counters ``taken`` has; a column's name must be among them."""
    while name in taken:
        name = f"counter_{name}"
    return name


@lru_cache(maxsize=4096, typed=True)
def _place(level: str, channel: str | None = None, name: object = None, api_id: object = None) -> bytes:
    """Encode where a row belongs; the same few places come again for every day and every send."""
    return b"," + _members(level=level, channel=channel, variation_name=name, variation_api_id=api_id)


def _members(**values: object) -> bytes:
    """Encode the inside of a JSON object, without its braces."""
    return orjson.dumps(values)[1:-1]


def _iso(seconds: float) -> str:
    """UTC, to the millisecond."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
