"""Computes the data series of a send. It depends only on the seed, the pair and the time.

- Documented: there is one element for each day, past days change through ``*_by_send_time``, and analytics are kept
  for 14 days after the send.
- Recorded: days without activity are present, filled with zeros.
- Not documented: the response for an expired or unknown send. One report says "empty results"; a setting chooses it.
- Not documented: whether day 14 is still kept. Here it is.
- Invented: reactions halve every day, and numbers change only at full hours, so a retry reads the same.
"""

from datetime import date
from functools import lru_cache
from math import exp2
from typing import Literal

import orjson

from harvester.model import DAY_SECONDS, RETENTION_SECONDS, Verdict
from harvester.simulator.random_draw import random_draw
from harvester.simulator.request import SeriesRequest, get_day, get_day_start
from harvester.simulator.send_report import Counters, DayOfSend, get_send_report

UnknownPairs = Literal["zero", "empty"]
"""The response for a send that is unknown or expired: days of zeros, or no days."""

_UPDATE_SECONDS = 3600.0


def compute_series(
    request: SeriesRequest, *, seed: int, sent_at: float | None, now: float, unknown_pairs: UnknownPairs = "zero"
) -> tuple[Verdict, bytes]:
    """Return the correct verdict for a series, and the body of the 200 that contains it.

    ``sent_at`` is None for an unknown send; a future send is unknown too. Times are epoch seconds. Nothing after
    ``now`` is counted, even if later days are requested. Of the sends that exist, one in 50 has no days, and one in 20
    has only zeros.
    """
    drawn = random_draw(seed, request.campaign_id, request.send_id)
    alive = sent_at is not None and 0 <= now - sent_at <= RETENTION_SECONDS
    if drawn % 50 == 0 if alive else unknown_pairs == "empty":
        return Verdict.EMPTY, _encode_body([], drawn)
    silent_day = _encode_silent_day(seed, request.campaign_id)
    days = dict.fromkeys(range(request.last_day - request.length_days + 1, request.last_day + 1), silent_day)
    if sent_at is not None and alive and drawn % 20 != 1:
        report, until = get_send_report(seed, request.campaign_id), now // _UPDATE_SECONDS * _UPDATE_SECONDS
        for day in range(max(min(days), get_day(sent_at)), min(request.last_day, get_day(until)) + 1):
            days[day] = _encode_day(report.compute_day(_compute_day(day, 200 + drawn % 20_000, sent_at, until)))
    active = any(day is not silent_day and day != silent_day for day in days.values())
    return (Verdict.ACTIVITY if active else Verdict.ZERO), _encode_body(
        [b'{"time":"%b",%b' % (date.fromordinal(day).isoformat().encode(), rest) for day, rest in days.items()], drawn
    )


def _compute_day(day: int, recipients: int, sent_at: float, until: float) -> DayOfSend:
    """Return a day of a send to ``recipients``, without reactions after ``until``."""

    def get_reacted_share(time: float) -> float:
        return 1.0 - exp2(-max(0.0, min(time, until) - sent_at) / DAY_SECONDS)

    day_start = get_day_start(day)
    return DayOfSend(
        recipients=recipients,
        is_send_day=day_start <= sent_at < day_start + DAY_SECONDS and sent_at <= until,
        share_at_start=get_reacted_share(day_start),
        share_at_end=get_reacted_share(day_start + DAY_SECONDS),
        share_now=get_reacted_share(until),
    )


@lru_cache(maxsize=2048)
def _encode_silent_day(seed: int, campaign_id: str) -> bytes:
    """Return a day of a campaign without activity, as JSON without its date."""
    silent = DayOfSend(recipients=0, is_send_day=False, share_at_start=0.0, share_at_end=0.0, share_now=0.0)
    return _encode_day(get_send_report(seed, campaign_id).compute_day(silent))


def _encode_day(day: Counters) -> bytes:
    """Return a day as JSON without its opening brace, so that the date can be put in front."""
    return orjson.dumps(day)[1:]


def _encode_body(days: list[bytes], drawn: int) -> bytes:
    """Return the body that contains these days. ``message`` is the first or the last member, as documented."""
    data = b'"data":[%b]' % b",".join(days)
    return b'{"message":"success",%b}' % data if drawn % 2 else b'{%b,"message":"success"}' % data
