"""An answer becomes rows: pure, and the only place that knows the shape of Braze's JSON.

The shape (documentation of the endpoint, and one recorded answer): an object with ``message`` equal to
``success`` and ``data``, a list with one element per day: ``time``, ``messages`` by channel (each a list of
variations), and the day's totals beside them. Days are zero-filled, counters that do not apply are absent,
and neither channels nor counters are a closed set. So nothing known is required and nothing unknown is
dropped: a value of an unexpected kind passes through and the answer is marked as *drift*.
"""

from datetime import UTC, datetime
from typing import Any

import orjson

from harvester.errors import ExchangeError
from harvester.model import Captured, Reading, Verdict

FIXED_COLUMNS = (
    "workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id",
    "reading", "captured_at", "verdict", "batch_id",
)  # fmt: skip
"""The columns every row begins with; counters follow under Braze's own names."""

_FIXED = frozenset(FIXED_COLUMNS)
_ROUNDED_FROM = 2**63
"""JSON decoding rounds integers from about here on to floats; such a counter is not exact."""


def days_of(body: bytes) -> list[Any]:
    """Give the days of a usable answer.

    Raises ``ExchangeError`` for anything else a 200 may carry: broken or truncated JSON, an HTML page,
    another message than success. Such an answer says nothing about the pair.
    """
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
    days = days_of(body)
    rows = _Rows(reading)
    for day in days:
        rows.add_day(day)
    verdict = Verdict.ACTIVITY if rows.active else Verdict.ZERO if days else Verdict.EMPTY
    lines = rows.encoded(batch_id=batch_id, captured_at=captured_at, verdict=verdict)
    return Captured(verdict, captured_at, lines, row_count=rows.count + 1, drift=rows.drift)


class _Rows:
    """The rows of one answer, encoded as they are found: this is the hot path.

    What the rows of a capture share at their end (its verdict among it) is known only when all are read, so
    the pieces between are kept and joined by it.
    """

    def __init__(self, reading: Reading) -> None:
        pair = reading.pair
        self._reading = reading
        self._head = (
            _members(workspace=pair.workspace, campaign_id=pair.campaign_id, send_id=pair.send_id) + b',"date":'
        )
        self._places: dict[tuple[object, ...], bytes] = {}
        self._pieces: list[bytes] = []
        self._before = b"{"
        self.count = 0
        self.active = False
        self.drift = False

    def add_day(self, day: object) -> None:
        """Add a row for each variation of a day and one for its totals, taking the parsed day apart."""
        if not isinstance(day, dict):
            self.drift = True
            self._add(b"null", self._place("day"), {"unrecognized": day})
            return
        date, channels = day.pop("time", None), day.pop("messages", None)
        if not isinstance(date, str) or not isinstance(channels, dict):
            self.drift = True
        encoded_date = orjson.dumps(date)
        if isinstance(channels, dict):
            for channel, variations in channels.items():
                for variation in variations if isinstance(variations, list) else [variations]:
                    self._add_variation(encoded_date, channel, variation)
        elif channels is not None:
            day["unrecognized"] = channels
        self._add(encoded_date, self._place("day"), day)

    def _add_variation(self, date: bytes, channel: str, variation: object) -> None:
        if isinstance(variation, dict):
            name, api_id = variation.pop("variation_name", None), variation.pop("variation_api_id", None)
            self._add(date, self._place("variation", channel, name, api_id), variation)
        else:
            self.drift = True
            self._add(date, self._place("variation", channel), {"unrecognized": variation})

    def _add(self, date: bytes, place: bytes, counters: dict[str, Any]) -> None:
        """Add one row, and note whether anything is counted in it and whether anything is no plain number."""
        try:
            total = sum(counters.values())
        except TypeError:
            self.drift = True
            self.active = self.active or any(_is_count(value) and value for value in counters.values())
        else:
            self.active = self.active or bool(total) or any(counters.values())
            self.drift = self.drift or total >= _ROUNDED_FROM
        if not counters.keys().isdisjoint(_FIXED):
            self.drift = True
            counters = {f"counter_{name}" if name in _FIXED else name: value for name, value in counters.items()}
        self._pieces.append(self._before + self._head + date + place)
        self._before = (b"," + orjson.dumps(counters)[1:] if counters else b"}") + b"\n{"
        self.count += 1

    def _place(self, level: str, channel: str | None = None, name: object = None, api_id: object = None) -> bytes:
        """Encode where a row belongs; an answer repeats the same few places for every day."""
        try:
            return self._places[level, channel, name, api_id]
        except KeyError:
            place = b"," + _members(level=level, channel=channel, variation_name=name, variation_api_id=api_id)
            self._places[level, channel, name, api_id] = place
            return place
        except TypeError:  # a name that is a list or an object cannot be a key
            self.drift = True
            return self._place(level, channel, orjson.dumps(name).decode(), orjson.dumps(api_id).decode())

    def encoded(self, *, batch_id: str, captured_at: float, verdict: Verdict) -> bytes:
        """Give all rows, one line each, the capture's own row last."""
        shared = b"," + _members(
            reading=self._reading.name, captured_at=_iso(captured_at), verdict=verdict, batch_id=batch_id
        )
        self._pieces.append(self._before + self._head + b"null" + self._place("capture"))
        self._pieces.append(b"," + _members(ending_at=_iso(self._reading.ending_at)) + b"}\n")
        return shared.join(self._pieces)


def _members(**values: object) -> bytes:
    """Encode the inside of a JSON object, without its braces."""
    return orjson.dumps(values)[1:-1]


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _iso(seconds: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
