"""An answer becomes rows: pure, and the only place that knows the shape of Braze's JSON.

The shape (documentation of the endpoint, and one recorded answer): an object with ``message`` equal to
``success`` and ``data``, a list with one element per day: ``time``, ``messages`` by channel (each a list of
variations), and the day's totals beside them. Days are zero-filled, counters that do not apply are absent,
and neither channels nor counters are a closed set. So nothing known is required and nothing unknown is
dropped: what is of an unexpected kind is kept, as text where it is neither number nor text, and the answer is marked
as *drift*. ``counters`` says which names become columns.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from harvester.braze.counters import CHANNELS, DAY, DOCUMENTED_COUNTERS, VARIATION, find_columns, fold
from harvester.errors import ExchangeError
from harvester.model import Captured, Pair, Reading, Verdict

MAX_NODES = 200_000
"""So many lists and objects make no plausible answer, and each takes a hundred times the memory of its bytes."""

MAX_ROW_BYTES = 8 * 1024 * 1024
"""Readers refuse longer lines, and with them the whole part: DuckDB those of 16 MiB."""

MAX_ROWS_BYTES = 64 * 1024 * 1024
"""A name is repeated in every row of its day or channel, so a small answer with long names could make gigabytes."""

_LARGE_BYTES = 1024 * 1024
_KEPT_CHARACTERS = 256
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


def captured(
    body: bytes, reading: Reading, *, batch_id: str, captured_at: float, new_counters: set[str]
) -> Captured:  # fmt: skip
    """Turn the body of a 200 into a capture: its verdict and its encoded rows. Raises as ``days_of`` does.

    ``new_counters`` are the undocumented names that became columns so far; those of this answer are added.
    """
    try:
        return _capture(days_of(body), reading, batch_id, captured_at, new_counters)
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


def _capture(
    days: list[Any], reading: Reading, batch_id: str, captured_at: float, new_counters: set[str]
) -> Captured:  # fmt: skip
    rows = _Rows(reading.pair, new_counters)
    for day in days:
        rows.add_day(day)
    verdict = Verdict.ACTIVITY if rows.active() else Verdict.ZERO if days else Verdict.EMPTY
    shared = _members(reading=reading.name, captured_at=_iso(captured_at), verdict=verdict, batch_id=batch_id)
    asked = _members(ending_at=_iso(reading.ending_at), since=_iso(reading.since))
    encoded = rows.encoded(shared, asked)
    return Captured(verdict, captured_at, encoded, row_count=len(rows.counters) + 1, drift=rows.drift)


class _Rows:
    """The rows of one answer: date, place and counters of each. This is the hot path.

    Looking at the counters and putting the rows together is done for all at once, in C, and only where something is
    odd row by row.
    """

    def __init__(self, pair: Pair, new_counters: set[str]) -> None:
        members = _members(workspace=pair.workspace, campaign_id=pair.campaign_id, send_id=pair.send_id)
        self._head = b"{" + members + b',"date":'
        self._dates: list[bytes] = []
        self._places: list[bytes] = []
        self._new_counters = new_counters
        self.counters: list[dict[str, Any]] = []
        self.drift = False

    def add_day(self, day: object) -> None:
        """Add a row for each variation of a day and one for its totals, taking the parsed day apart."""
        if not isinstance(day, dict):
            self.drift = True
            self.add(b"null", _place("day"), {DAY: day})
            return
        date, channels = day.pop("time", None), day.pop("messages", None)
        if not isinstance(date, str) or not isinstance(channels, dict):
            self.drift = True
            date = _text(date)
        encoded_date = orjson.dumps(date)
        if isinstance(channels, dict):
            for channel, variations in channels.items():
                for variation in variations if isinstance(variations, list) else (variations,):
                    if isinstance(variation, dict):
                        self.add(encoded_date, self._place_of(channel, variation), variation)
                    else:
                        self.drift = True
                        self.add(encoded_date, _encode_place("variation", channel), {VARIATION: variation})
        elif channels is not None:
            day[CHANNELS] = channels
        self.add(encoded_date, _place("day"), day)

    def _place_of(self, channel: str, variation: dict[str, Any]) -> bytes:
        """Tell where a variation's row belongs, taking its names out of it."""
        name, api_id = variation.pop("variation_name", None), variation.pop("variation_api_id", None)
        if not ((name is None or type(name) is str) and (api_id is None or type(api_id) is str)):
            self.drift = True
            name, api_id = _text(name), _text(api_id)
        if len(f"{channel}{name}{api_id}") > _KEPT_CHARACTERS:
            return _encode_place("variation", channel, name, api_id)
        return _place("variation", channel, name, api_id)

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
            orjson.dumps(self.counters)  # raises for what is nested deeper than can be written
            return any(_counts(value) for counters in self.counters for value in counters.values())
        self.drift = self.drift or max(totals, default=0) >= _ROUNDED_FROM
        return any(totals) or any(any(counters.values()) for counters in self.counters)

    def encoded(self, shared: bytes, asked: bytes) -> bytes:
        """Give all rows, one line each; ``shared`` stands in each between its place and its counters.

        The last one is that of the capture itself, which has ``asked`` in place of counters.
        """
        counters = self.counters
        names = set().union(*counters)
        if self.drift or not names <= DOCUMENTED_COUNTERS:
            columns = find_columns(names, self._new_counters)
            self.drift = self.drift or not names <= columns
            counters = [fold(row, columns) for row in counters]
        between = {place: place + b"," + shared for place in set(self._places)}
        with_comma = {place: each + b"," for place, each in between.items()}
        pieces = [self._head] * (4 * len(counters))
        pieces[1::4] = self._dates
        pieces[2::4] = [
            (with_comma if row else between)[place] for place, row in zip(self._places, counters, strict=True)
        ]
        pieces[3::4] = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)[1:] for row in counters]
        _check_lengths(pieces)
        pieces += (self._head, b"null", _place("capture"), b",", shared, b",", asked, b"}\n")
        return b"".join(pieces)


def _check_lengths(pieces: list[bytes]) -> None:
    """Raise ``ExchangeError`` for rows that no reader could take, before they are put together: four pieces a row."""
    total = sum(map(len, pieces))
    if total > MAX_ROWS_BYTES:
        raise ExchangeError("oversized", f"the answer makes rows of more than {MAX_ROWS_BYTES} bytes")
    if total > MAX_ROW_BYTES:
        lengths = list(map(len, pieces))
        if max(sum(lengths[row : row + 4]) for row in range(0, len(lengths), 4)) > MAX_ROW_BYTES:
            raise ExchangeError("oversized", f"the answer makes a row of more than {MAX_ROW_BYTES} bytes")


def _text(value: object) -> str | None:
    """Return a text as it is, and anything else as JSON text."""
    return value if isinstance(value, str | None) else orjson.dumps(value).decode()


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


def _encode_place(level: str, channel: str | None = None, name: str | None = None, api_id: str | None = None) -> bytes:
    """Encode where a row belongs."""
    return b"," + _members(level=level, channel=channel, variation_name=name, variation_api_id=api_id)


_place = lru_cache(maxsize=4096)(_encode_place)
"""The same few places come again for every day and every send; long names are not kept."""


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
