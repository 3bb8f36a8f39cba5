"""Adds pairs: new ones are inserted, known ones are updated by one statement for each event.

A known pair may begin another round, because send ids may be used again. It may also start to follow a plan, or the
time of its send may become known. A captured pair is not requested again unless it is a new send.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    case,
    false,
    func,
    literal,
    or_,
    select,
    true,
    update,
)

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import NOW
from harvester.ledger.json_rows import encode_rows, rows_as_table
from harvester.ledger.plans import get_plans
from harvester.ledger.schema import NEVER, pairs
from harvester.model import Pair, SentPair
from harvester.schedule import ONCE, SINGLE_READING_PLAN, ReadingPlan

IDENTITY = (pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id)
_COLUMNS = (*IDENTITY, pairs.c.sent_at, pairs.c.expires_at, pairs.c.reading, pairs.c.due_at, pairs.c.state)

_SETTLED = pairs.c.state == "settled"
SAME_SEND_SECONDS = 60.0
"""Times of a send that differ by less are one: some exports drop the seconds."""

_WHICH = {"any": true(), "planned": pairs.c.reading != ONCE, "once": pairs.c.reading == ONCE}
"""Which known pairs a statement updates: by how they are read."""

_BEFORE: BindParameter[int] = bindparam("before", type_=Integer)
"""The highest id of the pairs that were there before the arrivals."""

_LAST_ID = select(func.coalesce(func.max(pairs.c.id), 0))
_COUNT_NEW = select(func.count()).select_from(pairs).where(pairs.c.id > _BEFORE)


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    """The numbers of enqueued pairs that were new and known.

    ``in_question`` is a settled pair whose window seems closed, but the time is not confirmed.
    """

    new: int
    known: int
    in_question: Pair | None = None


@dataclass(frozen=True, slots=True)
class _KnownPairs:
    """The rows of known pairs, joined with the arrivals; ``same`` is the join."""

    arrived: FromClause
    same: ColumnElement[bool]


def enqueue(
    tx: Transaction,
    arrivals: Sequence[SentPair],
    *,
    once: bool = False,
    forced: bool = False,
    trust_clock: bool = False,
) -> EnqueueResult:
    """Add pairs, to be read by the plan of their workspace or ``once``; a known pair stays one pair.

    ``forced`` pairs do not expire, and expired ones are opened again. While the time is not confirmed, and without
    ``trust_clock``, no window counts as closed. A wrong clock therefore causes no new reading.
    """
    latest = _latest_of_each(arrivals)
    plans = get_plans(tx, sorted({pair.workspace for pair in latest}))
    by_plan = [_row(each, plans[pair.workspace], tx.now, forced=forced) for pair, each in latest.items()]
    rows = [_row(each, SINGLE_READING_PLAN, tx.now, forced=forced) for each in latest.values()] if once else by_plan
    before = {"before": tx.execute(_LAST_ID).scalar_one()}
    tx.execute(_insert(tx.dialect), encode_rows(rows))
    new = tx.execute(_COUNT_NEW, before).scalar_one()
    question = None
    if new < len(rows):
        confirmed = tx.confirmed or trust_clock
        # A list that is read once does not end a plan.
        changes = [("planned", by_plan), ("once", rows)] if once else [("any", rows)]
        for which, arrived in changes:
            values = encode_rows(arrived) | before
            for statement in _update_known(tx.dialect, which, forced=forced, confirmed=confirmed):
                tx.execute(statement, values)
        question = None if confirmed else _find_closed(tx, rows)
    return EnqueueResult(new=new, known=len(arrivals) - new, in_question=question)


def _latest_of_each(arrivals: Sequence[SentPair]) -> dict[Pair, SentPair]:
    """Return each pair once, with the latest time of its send."""
    latest: dict[Pair, SentPair] = {}
    for each in arrivals:
        other = latest.get(each.pair)
        if other is None or (each.sent_at or 0) > (other.sent_at or 0):
            latest[each.pair] = each
    return latest


def _row(arrival: SentPair, plan: ReadingPlan, now: float, *, forced: bool) -> tuple[object, ...]:
    pair, sent_at = arrival.pair, arrival.sent_at
    expires_at = NEVER if forced else plan.expires_at(now if sent_at is None else sent_at)
    first = plan.first(sent_at, now)
    state = "due" if first.due_at <= now else "waiting"
    return (pair.workspace, pair.campaign_id, pair.send_id, sent_at, expires_at, first.name, first.due_at, state)


@cache
def _insert(dialect: Dialect) -> Executable:
    """Insert the pairs that are new."""
    arrived = rows_as_table(dialect, _COLUMNS)
    # SQLite would parse ON CONFLICT after a SELECT as the ON of a join, unless there is a WHERE between them.
    every = select(arrived, NOW, literal(0)).where(true())
    columns = [*(column.name for column in _COLUMNS), "first_seen_at", "deferrals"]
    statement: Executable = dialect.insert(pairs).from_select(columns, every).on_conflict_do_nothing()
    return statement


@cache
def _update_known(dialect: Dialect, which: str, *, forced: bool, confirmed: bool) -> tuple[Update, ...]:
    """Return a statement for each event that updates known pairs. At most one event applies to a pair.

    ``forced`` reopens expired pairs, and keeps open pairs from expiring.
    """
    known = _join_known(dialect, _WHICH[which])
    if not forced:
        return (begin_round(known, confirmed=confirmed), start_plan(known), learn_send_time(known), move_times(known))
    expired = _KnownPairs(known.arrived, and_(known.same, pairs.c.outcome == "expired"))
    keep_open = update(pairs).where(known.same, ~_SETTLED).values({pairs.c.expires_at: NEVER})
    return (begin_round(expired, confirmed=confirmed), start_plan(expired), reopen_expired(expired), keep_open)


def _join_known(dialect: Dialect, which: ColumnElement[bool]) -> _KnownPairs:
    """Join the arrivals with the pairs that were there ``before``."""
    arrived = rows_as_table(dialect, _COLUMNS)
    identity = (pairs.c[column.name] == arrived.c[column.name] for column in IDENTITY)
    return _KnownPairs(arrived, and_(which, pairs.c.id <= _BEFORE, *identity))


def begin_round(known: _KnownPairs, *, confirmed: bool) -> Update:
    """Begin another round: the send is later than the known one, or it has no time and the window has closed."""
    p, arrived = pairs.c, known.arrived.c
    later = arrived.sent_at >= func.coalesce(p.sent_at, p.first_seen_at) + SAME_SEND_SECONDS
    closed = _is_closed(known.arrived) if confirmed else false()
    values = _restart_values(arrived) | {
        p.sent_at: arrived.sent_at,
        p.first_seen_at: NOW,
        p.expires_at: arrived.expires_at,
        p.round: p.round + 1,
        p.captures: 0,
    }
    return update(pairs).where(known.same, or_(later, closed)).values(values)


def start_plan(known: _KnownPairs) -> Update:
    """Begin a round by plan for a pair that was to be read once, while its window is open."""
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


def learn_send_time(known: _KnownPairs) -> Update:
    """Plan an open pair again from its send time, which is now known, if it has no capture."""
    p, arrived = pairs.c, known.arrived.c
    values = _restart_values(arrived) | {p.sent_at: arrived.sent_at, p.expires_at: arrived.expires_at}
    return update(pairs).where(known.same, _learns_time(arrived), p.captures == 0).values(values)


def move_times(known: _KnownPairs) -> Update:
    """Move the times of an open pair to its send time, which is now known; captured readings stay captured."""
    p, arrived = pairs.c, known.arrived.c
    values: dict[Any, Any] = {
        p.sent_at: arrived.sent_at,
        p.expires_at: arrived.expires_at,
        p.due_at: p.due_at + arrived.sent_at - p.first_seen_at,
    }
    return update(pairs).where(known.same, _learns_time(arrived), p.captures > 0).values(values)


def reopen_expired(known: _KnownPairs) -> Update:
    """Reopen expired pairs in their current round."""
    p, arrived = pairs.c, known.arrived.c
    values = _restart_values(arrived) | {p.sent_at: func.coalesce(arrived.sent_at, p.sent_at)}
    return update(pairs).where(known.same).values(values)


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


def _is_closed(arrived: FromClause) -> ColumnElement[bool]:
    """Return whether a settled pair's window has closed, so that the same pair without a time is a new send."""
    return and_(_SETTLED, arrived.c.sent_at.is_(None), pairs.c.expires_at < NOW)


def _find_closed(tx: Transaction, rows: Sequence[Sequence[object]]) -> Pair | None:
    row = tx.execute(_select_closed(tx.dialect), encode_rows(rows)).first()
    return None if row is None else Pair(*row)


@cache
def _select_closed(dialect: Dialect) -> Select[str, str, str]:
    """Select one pair that arrived whose window seems closed."""
    arrived = rows_as_table(dialect, _COLUMNS)
    same = (pairs.c[column.name] == arrived.c[column.name] for column in IDENTITY)
    return select(*IDENTITY).where(*same, _is_closed(arrived)).limit(1)
