"""The data series of a send, which follows from the seed, the pair and the time alone.

Documented: one element for each day, past days change through ``*_by_send_time``, and analytics are kept for 14 days
after the send. Recorded: days without activity are present, filled with zeros. Documented nowhere: the answer for an
expired or unknown send (one report says "empty results"), so it can be chosen; and whether day 14 counts (here: yes).
Made up: reactions halve every day, and figures change at each full hour, so that a retry reads the same.
"""

from datetime import date
from functools import lru_cache
from math import exp2
from typing import Literal

import orjson

from harvester.model import DAY_SECONDS, RETENTION_SECONDS, Verdict
from harvester.simulator.random_draw import draw
from harvester.simulator.request import SeriesRequest, day_of, start_of
from harvester.simulator.send_report import Counters, DayOfSend, get_send_report

UnknownPairs = Literal["zero", "empty"]
"""The answer for a send that is unknown or expired: days of zeros, or no days."""

_UPDATED_SECONDS = 3600.0


def answer(
    request: SeriesRequest, *, seed: int, sent_at: float | None, now: float, unknown_pairs: UnknownPairs = "zero"
) -> tuple[Verdict, bytes]:
    """Return the verdict that a reader must reach, and the body of the 200.

    ``sent_at`` is None for an unknown send; a future send is unknown too. Times are epoch seconds. Nothing later than
    ``now`` is counted, whatever days are requested. Of the sends that exist, one in 50 has no days and one in 20 only
    zeros.
    """
    drawn = draw(seed, request.campaign_id, request.send_id)
    alive = sent_at is not None and 0 <= now - sent_at <= RETENTION_SECONDS
    if drawn % 50 == 0 if alive else unknown_pairs == "empty":
        return Verdict.EMPTY, _body([], drawn)
    nothing = _nothing(seed, request.campaign_id)
    days = dict.fromkeys(range(request.last_day - request.length_days + 1, request.last_day + 1), nothing)
    if sent_at is not None and alive and drawn % 20 != 1:
        report, until = get_send_report(seed, request.campaign_id), now // _UPDATED_SECONDS * _UPDATED_SECONDS
        for day in range(max(min(days), day_of(sent_at)), min(request.last_day, day_of(until)) + 1):
            days[day] = _encoded(report.day(_day_of_send(day, 200 + drawn % 20_000, sent_at, until)))
    active = any(day is not nothing and day != nothing for day in days.values())
    return (Verdict.ACTIVITY if active else Verdict.ZERO), _body(
        [b'{"time":"%b",%b' % (date.fromordinal(day).isoformat().encode(), rest) for day, rest in days.items()], drawn
    )


def _day_of_send(day: int, size: int, sent_at: float, until: float) -> DayOfSend:
    """Return a day of a send, if time ended at ``until``."""

    def arrived_by(moment: float) -> float:
        return 1.0 - exp2(-max(0.0, min(moment, until) - sent_at) / DAY_SECONDS)

    began = start_of(day)
    return DayOfSend(
        size=size,
        went_out=began <= sent_at < began + DAY_SECONDS and sent_at <= until,
        before=arrived_by(began),
        after=arrived_by(began + DAY_SECONDS),
        so_far=arrived_by(until),
    )


@lru_cache(maxsize=2048)
def _nothing(seed: int, campaign_id: str) -> bytes:
    """Return a day of a campaign without activity, without its date."""
    silent = DayOfSend(size=0, went_out=False, before=0.0, after=0.0, so_far=0.0)
    return _encoded(get_send_report(seed, campaign_id).day(silent))


def _encoded(day: Counters) -> bytes:
    return orjson.dumps(day)[1:]


def _body(days: list[bytes], drawn: int) -> bytes:
    """Wrap days in their envelope. ``message`` comes first or last, as in the documentation's sample."""
    data = b'"data":[%b]' % b",".join(days)
    return b'{"message":"success",%b}' % data if drawn % 2 else b'{%b,"message":"success"}' % data
