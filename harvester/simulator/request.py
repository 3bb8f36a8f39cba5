"""Parses and validates the documented parameters of ``GET /sends/data_series``.

Documented: ``campaign_id``, ``send_id`` and ``length`` (1 to 100) are required, ``ending_at`` is an ISO 8601 datetime
and by default the time of the request; a wrong campaign is a 400 with ``Invalid Campaign ID``. The other texts are
inferred from one recorded on a sibling. No input raises anything but ``BadRequest``.
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
    """The request gets a 400; the message is that of the body."""


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """A pair, and the requested days: ``length_days`` of them up to ``last_day``, a proleptic ordinal of UTC."""

    campaign_id: str
    send_id: str
    length_days: int
    last_day: int


def day_of(seconds: float) -> int:
    """Give the UTC day of a time (epoch seconds) as a proleptic ordinal. That days are UTC's is inferred."""
    return _EPOCH + int(seconds // DAY_SECONDS)


def start_of(day: int) -> float:
    """Give the time (epoch seconds) at which a day begins, the reverse of ``day_of``."""
    return (day - _EPOCH) * DAY_SECONDS


def parse_request(query: Mapping[str, str], now: float) -> SeriesRequest:
    """Parse a query at ``now`` (epoch seconds). Raises ``BadRequest``.

    The day that begins at ``ending_at`` is not included, as in the one recorded call with a midnight. That a time
    without an offset is UTC's is inferred.
    """
    send_id, length = query.get("send_id", ""), query.get("length", "")
    if not send_id:
        raise BadRequest("send_id must be a string of the Send api identifier")
    if _LENGTH.fullmatch(length) is None:
        raise BadRequest("length must be an integer between 1 and 100")
    ending_at = _seconds(query["ending_at"]) if "ending_at" in query else now
    last_day = _EPOCH + ceil(ending_at / DAY_SECONDS) - 1
    if not int(length) <= last_day <= date.max.toordinal():
        raise BadRequest("ending_at is out of range")
    return SeriesRequest(query.get("campaign_id", ""), send_id, int(length), last_day)


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest("ending_at must be an ISO 8601 datetime") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
