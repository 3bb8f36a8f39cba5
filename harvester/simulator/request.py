"""Parses and validates the documented parameters of ``GET /sends/data_series``.

- Documented: ``campaign_id``, ``send_id`` and ``length`` (1 to 100) are required. ``ending_at`` is an ISO 8601
  datetime; the default is the time of the request. A wrong campaign gets a 400 with ``Invalid Campaign ID``.
- Inferred: the texts of the other errors, from one that was recorded on a similar endpoint.

Invalid input raises only ``BadRequest``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from math import ceil

from harvester.model import DAY_SECONDS

_LENGTH = re.compile(r"[1-9][0-9]?|100")
_EPOCH = date(1970, 1, 1).toordinal()


class BadRequest(Exception):  # noqa: N818 - the name of the status
    """The request gets a 400; the text is the message in the body."""


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """A pair and the requested days: ``length_days`` days, up to ``last_day`` (a proleptic ordinal, in UTC)."""

    campaign_id: str
    send_id: str
    length_days: int
    last_day: int


def get_day(seconds: float) -> int:
    """Return the UTC day of a time (epoch seconds) as a proleptic ordinal. Inferred: days are in UTC."""
    return _EPOCH + int(seconds // DAY_SECONDS)


def get_day_start(day: int) -> float:
    """Return the time (epoch seconds) at which a day begins; the inverse of ``get_day``."""
    return (day - _EPOCH) * DAY_SECONDS


def parse_request(query: Mapping[str, str], now: float) -> SeriesRequest:
    """Parse a query at ``now`` (epoch seconds). Raises ``BadRequest``.

    Recorded: if ``ending_at`` is a midnight, the day that begins then is not included. Inferred: a time without an
    offset is in UTC.
    """
    send_id, length = query.get("send_id", ""), query.get("length", "")
    if not send_id:
        raise BadRequest("send_id must be a string of the Send api identifier")
    if _LENGTH.fullmatch(length) is None:
        raise BadRequest("length must be an integer between 1 and 100")
    ending_at = _parse_time(query["ending_at"]) if "ending_at" in query else now
    last_day = _EPOCH + ceil(ending_at / DAY_SECONDS) - 1
    if not int(length) <= last_day <= date.max.toordinal():
        raise BadRequest("ending_at is out of range")
    return SeriesRequest(query.get("campaign_id", ""), send_id, int(length), last_day)


def _parse_time(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest("ending_at must be an ISO 8601 datetime") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
