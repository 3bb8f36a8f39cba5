"""What the stand-in answers for a send: made from the seed, the pair and the time, and from nothing else.

Documented: one element for each day, past days change through ``*_by_send_time``, and analytics are kept for 14 days
after the send. Recorded: days without anything are there, filled with zeros. Documented nowhere: what an expired or
unknown send answers (one report says "empty results"), so it can be chosen; and whether day 14 counts (here: yes).
Made up: response halves every day, and figures move on at each full hour, so that a retry reads what was read before.
"""

from datetime import date
from functools import lru_cache
from math import exp2
from typing import Literal

import orjson

from harvester.model import DAY_SECONDS, RETENTION_SECONDS, Verdict
from harvester.simulator.random_draw import draw
from harvester.simulator.request import Question, day_of, start_of
from harvester.simulator.send_report import Counters, DayOfSend, report_of

UnknownPairs = Literal["zero", "empty"]
"""How to answer for a send that is unknown or expired: with days of zeros, or without days."""

_UPDATED_SECONDS = 3600.0


def answer(
    asked: Question, *, seed: int, sent_at: float | None, now: float, unknown_pairs: UnknownPairs = "zero"
) -> tuple[Verdict, bytes]:
    """Give the body of a 200, and the verdict that a reader must come to.

    ``sent_at`` is None for a send that is unknown; one still to come is unknown too. Times are epoch seconds. Nothing
    later than ``now`` is ever counted, whatever days are asked for. Of the sends that exist, one in 50 has no days and
    one in 20 only zeros.
    """
    drawn = draw(seed, asked.campaign_id, asked.send_id)
    alive = sent_at is not None and 0 <= now - sent_at <= RETENTION_SECONDS
    if drawn % 50 == 0 if alive else unknown_pairs == "empty":
        return Verdict.EMPTY, _body([], drawn)
    nothing = _nothing(seed, asked.campaign_id)
    days = dict.fromkeys(range(asked.last_day - asked.length_days + 1, asked.last_day + 1), nothing)
    if sent_at is not None and alive and drawn % 20 != 1:
        report, until = report_of(seed, asked.campaign_id), now // _UPDATED_SECONDS * _UPDATED_SECONDS
        for day in range(max(min(days), day_of(sent_at)), min(asked.last_day, day_of(until)) + 1):
            days[day] = _encoded(report.day(_seen(day, 200 + drawn % 20_000, sent_at, until)))
    active = any(day is not nothing and day != nothing for day in days.values())
    return (Verdict.ACTIVITY if active else Verdict.ZERO), _body(
        [b'{"time":"%b",%b' % (date.fromordinal(day).isoformat().encode(), rest) for day, rest in days.items()], drawn
    )


def _seen(day: int, size: int, sent_at: float, until: float) -> DayOfSend:
    """Give what a day saw of a send, if time ended at ``until``."""

    def came_by(moment: float) -> float:
        return 1.0 - exp2(-max(0.0, min(moment, until) - sent_at) / DAY_SECONDS)

    began = start_of(day)
    return DayOfSend(
        size=size,
        went_out=began <= sent_at < began + DAY_SECONDS and sent_at <= until,
        before=came_by(began),
        after=came_by(began + DAY_SECONDS),
        so_far=came_by(until),
    )


@lru_cache(maxsize=2048)
def _nothing(seed: int, campaign_id: str) -> bytes:
    """Give a day of a campaign on which nothing was counted, its date left off."""
    silent = DayOfSend(size=0, went_out=False, before=0.0, after=0.0, so_far=0.0)
    return _encoded(report_of(seed, campaign_id).day(silent))


def _encoded(day: Counters) -> bytes:
    return orjson.dumps(day)[1:]


def _body(days: list[bytes], drawn: int) -> bytes:
    """Put days into their envelope; ``message`` comes first or last, as in the documentation's own sample."""
    data = b'"data":[%b]' % b",".join(days)
    return b'{"message":"success",%b}' % data if drawn % 2 else b'{%b,"message":"success"}' % data
