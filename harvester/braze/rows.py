"""Encodes the rows of one response: one for each variation of a day, one for each day, and one for the capture. Pure.

``columns`` decides which names become columns, and their types. A value that does not have the type of its column is
kept as text, and the response is marked as *drift*.
"""

from itertools import chain
from typing import Any

import orjson

from harvester.braze.columns import (
    CHANNELS,
    DAY,
    DOCUMENTED_COUNTERS,
    INTEGER_LIMIT,
    UNRECOGNIZED,
    VARIATION,
    find_columns,
    fold_row,
)
from harvester.errors import ExchangeError
from harvester.model import Pair

MAX_ROW_BYTES = 8 * 1024 * 1024
"""Readers refuse the whole part if a line is too long; DuckDB's limit is 16 MiB."""

MAX_ROWS_BYTES = 64 * 1024 * 1024
"""A name is repeated in every row of its day or channel, so a small response with long names could become gigabytes."""

_PIECES_OF_A_ROW = 5


class Rows:
    """The rows of one response: date, level and counters of each.

    This is the hot path. Counters are checked and rows are joined for all rows at once, in C. Only a response with an
    unexpected value is processed row by row.
    """

    def __init__(self, pair: Pair, new_counters: set[str]) -> None:
        """Begin without rows. ``new_counters`` are the undocumented names that became columns so far."""
        members = encode_members(workspace=pair.workspace, campaign_id=pair.campaign_id, send_id=pair.send_id)
        self._head = b"{" + members + b',"date":'
        self._dates: list[bytes] = []
        self._levels: list[bytes] = []
        self._levels_by_names: dict[tuple[Any, ...], bytes] = {}
        self._new_counters = new_counters
        self._regular = True
        """Whether every value has the type of its column, provided that its name is documented."""
        self.counters: list[dict[str, Any]] = []
        self.drift = False

    def add_day(self, day: object) -> None:
        """Add a row for each variation of a day and one for its totals. Changes the parsed day."""
        if not isinstance(day, dict):
            self.drift = True
            self._add(b"null", _DAY_LEVEL, {DAY: day})
            return
        date, channels = day.pop("time", None), day.pop("messages", None)
        if not isinstance(date, str) or not isinstance(channels, dict):
            self.drift = True
            date = _to_text(date)
        encoded_date = orjson.dumps(date)
        if isinstance(channels, dict):
            for channel, variations in channels.items():
                for variation in variations if isinstance(variations, list) else (variations,):
                    if isinstance(variation, dict):
                        names = channel, variation.pop("variation_name", None), variation.pop("variation_api_id", None)
                        self._add(encoded_date, self._find_level(names), variation)
                    else:
                        self.drift = True
                        self._add(encoded_date, _encode_level("variation", channel), {VARIATION: variation})
        elif channels is not None:
            day[CHANNELS] = channels
        self._add(encoded_date, _DAY_LEVEL, day)

    def _find_level(self, names: tuple[Any, ...]) -> bytes:
        """Return the encoded level of a variation, given its channel, name and API id, which are the same every day."""
        try:
            return self._levels_by_names[names]
        except (KeyError, TypeError):  # not encoded yet, or a value that cannot be the key of a dictionary
            channel, *texts = names
        if not all(text is None or type(text) is str for text in texts):
            self.drift = True
            return _encode_level("variation", channel, *map(_to_text, texts))
        level = self._levels_by_names[names] = _encode_level("variation", channel, *texts)
        return level

    def _add(self, date: bytes, level: bytes, counters: dict[str, Any]) -> None:
        """Add one row."""
        self._dates.append(date)
        self._levels.append(level)
        self.counters.append(counters)

    def check_activity(self) -> bool:
        """Return whether any counter is not zero. A counter that is not a number is drift."""
        if not self.counters:
            return False
        decimals = 0
        for row in self.counters:
            if "revenue" in row:
                if type(row["revenue"]) is int:
                    row["revenue"] = float(row["revenue"])
                decimals += type(row["revenue"]) is float
        values = list(chain.from_iterable(map(dict.values, self.counters)))
        types = list(map(type, values))
        others = len(types) - types.count(int)
        self._regular = others == decimals and sum(values) < INTEGER_LIMIT
        if self._regular or others == types.count(float):
            return any(values)
        self.drift = True
        orjson.dumps(self.counters)  # raises if they are nested too deep to be encoded
        return any(map(_is_active, values))

    def encode(self, shared: bytes, requested: bytes) -> bytes:
        """Return all rows, one line each; ``shared`` is in each row, between its level and its counters.

        The last row describes the capture; it has ``requested`` instead of counters.
        """
        names = set().union(*self.counters)
        if self._regular and names <= DOCUMENTED_COUNTERS:
            # All values are numbers, so `},{` occurs only between rows. One call is faster than a call for each row.
            counters = orjson.dumps(self.counters)[2:-2].split(b"},{") if self.counters else []
        else:
            columns = find_columns(names, self._new_counters)
            folded = [fold_row(row, columns) for row in self.counters]
            self.drift = self.drift or any(UNRECOGNIZED in row for row in folded)
            counters = [orjson.dumps(row)[1:-1] for row in folded]
        between = {level: level + b"," + shared for level in set(self._levels)}
        with_comma = {level: each + b"," for level, each in between.items()}
        pieces = [self._head, b"", b"", b"", b"}\n"] * len(counters)
        pieces[1::_PIECES_OF_A_ROW] = self._dates
        pieces[2::_PIECES_OF_A_ROW] = [
            (with_comma if row else between)[level] for level, row in zip(self._levels, counters, strict=True)
        ]
        pieces[3::_PIECES_OF_A_ROW] = counters
        _check_lengths(pieces)
        pieces += (self._head, b"null", _CAPTURE_LEVEL, b",", shared, b",", requested, b"}\n")
        return b"".join(pieces)


def _check_lengths(pieces: list[bytes]) -> None:
    """Raise ``ExchangeError`` for rows that no reader accepts, before they are joined."""
    total = sum(map(len, pieces))
    if total > MAX_ROWS_BYTES:
        raise ExchangeError("oversized", f"the response makes rows of more than {MAX_ROWS_BYTES} bytes")
    if total > MAX_ROW_BYTES:
        lengths, size = list(map(len, pieces)), _PIECES_OF_A_ROW
        if max(sum(lengths[row : row + size]) for row in range(0, len(lengths), size)) > MAX_ROW_BYTES:
            raise ExchangeError("oversized", f"the response makes a row of more than {MAX_ROW_BYTES} bytes")


def _to_text(value: object) -> str | None:
    """Return a text unchanged, and anything else as JSON text."""
    return value if isinstance(value, str | None) else orjson.dumps(value).decode()


def _is_active(value: object) -> bool:
    """Return whether a value of any type reports activity: anything except zeros and empty values."""
    if isinstance(value, str):
        try:
            return float(value) != 0
        except ValueError:
            return bool(value.strip())
    if isinstance(value, list | dict):
        return any(map(_is_active, value if isinstance(value, list) else value.values()))
    return bool(value)


def encode_members(**values: object) -> bytes:
    """Encode the inside of a JSON object, without its braces."""
    return orjson.dumps(values)[1:-1]


def _encode_level(level: str, channel: str | None = None, name: str | None = None, api_id: str | None = None) -> bytes:
    """Encode the level of a row: a day, a variation or the capture."""
    return b"," + encode_members(level=level, channel=channel, variation_name=name, variation_api_id=api_id)


_DAY_LEVEL, _CAPTURE_LEVEL = _encode_level("day"), _encode_level("capture")
