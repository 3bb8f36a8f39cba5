"""The statements that update a known pair when it arrives again. At most one of them changes a pair."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Update, and_, case, false, func, or_, update

from harvester.ledger.filters import NOW
from harvester.ledger.schema import NEVER, pairs
from harvester.model import GRACE_SECONDS
from harvester.schedule import ONCE

SAME_SEND_SECONDS = 60.0
"""Times of a send that differ by less are one: some exports drop the seconds."""

_SETTLED = pairs.c.state == "settled"


@dataclass(frozen=True, slots=True)
class KnownPairs:
    """The rows of known pairs, joined with the arrivals; ``same`` is the join."""

    arrived: FromClause
    same: ColumnElement[bool]


def begin_round(known: KnownPairs, *, confirmed: bool) -> Update:
    """Begin another round: the send is later than the known one, or it has no time and the retention is over."""
    p, arrived = pairs.c, known.arrived.c
    later = arrived.sent_at >= func.coalesce(p.sent_at, p.first_seen_at) + SAME_SEND_SECONDS
    over = is_past_retention(known.arrived) if confirmed else false()
    values = _restart_values(arrived) | {
        p.sent_at: arrived.sent_at,
        p.first_seen_at: NOW,
        p.expires_at: arrived.expires_at,
        p.round: p.round + 1,
        p.captures: 0,
    }
    return update(pairs).where(known.same, or_(later, over)).values(values)


def start_plan(known: KnownPairs) -> Update:
    """Begin a round by plan for a pair that was to be read once, before its retention is over."""
    p, arrived = pairs.c, known.arrived.c
    expires_at = case((arrived.sent_at.is_(None), p.expires_at), else_=arrived.expires_at)
    planned = and_(p.reading == ONCE, arrived.reading != ONCE, expires_at > NOW)
    values = _restart_values(arrived) | {
        p.sent_at: func.coalesce(arrived.sent_at, p.sent_at),
        p.expires_at: expires_at,
        p.round: p.round + 1,
        p.captures: 0,
    }
    return update(pairs).where(known.same, planned).values(values)


def learn_send_time(known: KnownPairs) -> Update:
    """Plan an open pair again from its send time, which is now known, if it has no capture."""
    p, arrived = pairs.c, known.arrived.c
    values = _restart_values(arrived) | {p.sent_at: arrived.sent_at, p.expires_at: arrived.expires_at}
    return update(pairs).where(known.same, _learns_time(arrived), p.captures == 0).values(values)


def move_times(known: KnownPairs) -> Update:
    """Move the times of an open pair to its send time, which is now known; captured readings stay captured."""
    p, arrived = pairs.c, known.arrived.c
    values: dict[Any, Any] = {
        p.sent_at: arrived.sent_at,
        p.expires_at: arrived.expires_at,
        p.due_at: p.due_at + arrived.sent_at - p.first_seen_at,
    }
    return update(pairs).where(known.same, _learns_time(arrived), p.captures > 0).values(values)


def take_earlier_time(known: KnownPairs) -> Update:
    """Move the deadline of an open pair that is read once to an earlier time of its send, if that can still be read.

    A long list is enqueued while it is read, and the earliest time may be in one of its last rows. A pair in a later
    round keeps its time, because the earlier one may belong to the round before.
    """
    p, arrived = pairs.c, known.arrived.c
    readable = arrived.expires_at - GRACE_SECONDS > NOW
    earlier = and_(~_SETTLED, p.reading == ONCE, p.round == 0, arrived.sent_at < p.sent_at, readable)
    values: dict[Any, Any] = {p.sent_at: arrived.sent_at, p.expires_at: arrived.expires_at}
    return update(pairs).where(known.same, earlier).values(values)


def reopen_expired(known: KnownPairs) -> Update:
    """Reopen expired pairs in their current round."""
    p, arrived = pairs.c, known.arrived.c
    values = _restart_values(arrived) | {p.sent_at: func.coalesce(arrived.sent_at, p.sent_at)}
    return update(pairs).where(known.same).values(values)


def keep_open(known: KnownPairs) -> Update:
    """Keep open pairs from expiring."""
    return update(pairs).where(known.same, ~_SETTLED).values({pairs.c.expires_at: NEVER})


def _restart_values(arrived: Any) -> dict[Any, Any]:
    """Return the values of a pair that waits for its first reading; while it is leased it stays so."""
    p = pairs.c
    return {
        p.reading: arrived.reading,
        p.due_at: arrived.due_at,
        p.state: case((p.state == "leased", p.state), else_=arrived.state),
        p.low_priority: 0,
        p.deferrals: 0,
        p.outcome: None,
        p.verdict: None,
        p.reason: None,
        p.ending_at: None,
    }


def _learns_time(arrived: Any) -> ColumnElement[bool]:
    """Return whether an open pair has no send time and the arrival has one."""
    return and_(~_SETTLED, pairs.c.sent_at.is_(None), arrived.sent_at.is_not(None))


def is_past_retention(arrived: FromClause) -> ColumnElement[bool]:
    """Return whether a settled pair's retention is over, so that the same pair without a time is a new send."""
    return and_(_SETTLED, arrived.c.sent_at.is_(None), pairs.c.expires_at < NOW)
