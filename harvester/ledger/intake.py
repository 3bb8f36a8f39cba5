"""What comes into the ledger, and what people say of it later: enqueue, requeue, pause, remove.

Each verb is a function over one open transaction. Nothing here commits, waits, reads a clock or draws a random number.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    and_,
    case,
    delete,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)

from harvester.ledger.json_rows import handed_over
from harvester.ledger.plans import plan_of, resting
from harvester.ledger.schema import NEVER, outcomes, pairs
from harvester.model import Enqueued, Pair
from harvester.schedule import ONCE, ONLY_ONCE, ReadingPlan

_IDENTITY = (pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id)
_COLUMNS = (*_IDENTITY, pairs.c.sent_at, pairs.c.expires_at, pairs.c.reading, pairs.c.due_at, pairs.c.state)


@dataclass(frozen=True, slots=True)
class EnqueueCount:
    """Of the pairs handed over: how many the ledger did not know, and how many it did.

    ``in_question`` is a settled pair whose window seems closed, by a time that is not confirmed.
    """

    new: int
    known: int
    in_question: Pair | None = None


def enqueue(
    connection: Connection, arrivals: Sequence[Enqueued], *, now: float, forced: bool = False, once: bool = False,
    confirmed: bool = True,
) -> EnqueueCount:  # fmt: skip
    """Put pairs into the ledger, by the plan of their workspace or to be read ``once``; a known pair stays one pair.

    ``forced`` pairs do not expire, and expired ones are opened again. Unless the time is ``confirmed``, no window is
    closed, so that no pair is read anew because of a wrong clock.
    """
    latest: dict[Pair, Enqueued] = {}
    for each in arrivals:
        other = latest.get(each.pair)
        if other is None or (each.sent_at or 0) > (other.sent_at or 0):
            latest[each.pair] = each
    plans = {workspace: plan_of(connection, workspace) for workspace in {pair.workspace for pair in latest}}

    def rows_by(plan_of_each: Callable[[Enqueued], ReadingPlan]) -> list[tuple[object, ...]]:
        return [_row(each, plan_of_each(each), now, forced=forced) for each in latest.values()]

    rows = rows_by(lambda each: ONLY_ONCE if once else plans[each.pair.workspace])
    given = handed_over(connection, _COLUMNS, rows)
    same_for_all: dict[str, Any] = {"first_seen_at": now, "deferrals": 0}
    # SQLite takes ON CONFLICT after a SELECT for a join's ON, unless a WHERE stands between them.
    every = select(given, *(literal(value) for value in same_for_all.values())).where(true())
    dialect = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    taking = dialect.insert(pairs).from_select([*(column.name for column in _COLUMNS), *same_for_all], every)
    before = connection.execute(select(func.coalesce(func.max(pairs.c.id), 0))).scalar_one()
    connection.execute(taking.on_conflict_do_nothing())
    new = connection.execute(select(func.count()).select_from(pairs).where(pairs.c.id > before)).scalar_one()
    if new < len(rows):
        followed = pairs.c.reading != ONCE
        if once:  # a plan is not ended by a list that is to be read once
            by_plan = handed_over(connection, _COLUMNS, rows_by(lambda each: plans[each.pair.workspace]))
            _meet_known(connection, by_plan, before, followed, now=now, forced=forced, confirmed=confirmed)
            _meet_known(connection, given, before, ~followed, now=now, forced=forced, confirmed=confirmed)
        else:
            _meet_known(connection, given, before, true(), now=now, forced=forced, confirmed=confirmed)
    question = None if confirmed or new == len(rows) else _find_closed(connection, given, now)
    return EnqueueCount(new=new, known=len(arrivals) - new, in_question=question)


def _closed(given: FromClause, now: float) -> ColumnElement[bool]:
    """Whether a settled pair's window has closed, so that the same pair without a time is a new send."""
    return and_(pairs.c.state == "settled", given.c.sent_at.is_(None), pairs.c.expires_at < now)


def _find_closed(connection: Connection, given: FromClause, now: float) -> Pair | None:
    same = (pairs.c[column.name] == given.c[column.name] for column in _IDENTITY)
    row = connection.execute(select(*_IDENTITY).where(*same, _closed(given, now)).limit(1)).first()
    return None if row is None else Pair(*row)


def _row(arrival: Enqueued, plan: ReadingPlan, now: float, *, forced: bool) -> tuple[object, ...]:
    pair, sent_at = arrival.pair, arrival.sent_at
    expires_at = NEVER if forced else plan.expires_at(now if sent_at is None else sent_at)
    first = plan.first(sent_at, now)
    state = "due" if first.due_at <= now else "waiting"
    return (pair.workspace, pair.campaign_id, pair.send_id, sent_at, expires_at, first.name, first.due_at, state)


def _meet_known(
    connection: Connection, given: FromClause, before: int, which: ColumnElement[bool], *, now: float, forced: bool,
    confirmed: bool,
) -> None:  # fmt: skip
    """Let what a source knows better reach the pairs that the ledger had already.

    A later send than the known one begins a new round, since send ids may be used again; so does a pair without a
    time once its window has closed, and one that was to be read once and now has a plan. An earlier send than the
    first sight only moves the times of a pair that is still open: what was captured is not asked for again.
    """
    p, told = pairs.c, given.c
    settled = p.state == "settled"
    later = told.sent_at > func.coalesce(p.sent_at, p.first_seen_at)
    closed = _closed(given, now) if confirmed else false()
    # Without a time there is nothing to move a deadline by; only a closed window begins at what is seen now.
    expires_at = case((and_(told.sent_at.is_(None), ~closed), p.expires_at), else_=told.expires_at)
    planned = and_(p.reading == ONCE, told.reading != ONCE, expires_at > now)
    again = func.coalesce(or_(later, closed, planned), literal(value=False))
    learnt = and_(~settled, p.sent_at.is_(None), told.sent_at.is_not(None))
    moved: dict[Any, Any] = {
        p.sent_at: func.coalesce(told.sent_at, case((closed, None), else_=p.sent_at)),
        p.first_seen_at: case((func.coalesce(or_(later, closed), literal(value=False)), now), else_=p.first_seen_at),
        p.expires_at: expires_at, p.reading: told.reading, p.due_at: told.due_at,
        p.state: case((p.state.in_(("leased", "paused")), p.state), else_=told.state),
        p.round: p.round + case((again, 1), else_=0), p.captures: case((again, 0), else_=p.captures),
        p.yields: 0, p.deferrals: 0, p.outcome: None, p.verdict: None, p.reason: None,
        p.ending_at: None,
    }  # fmt: skip
    same = [which, p.id <= before, *(p[column.name] == told[column.name] for column in _IDENTITY)]
    if forced:
        connection.execute(update(pairs).where(*same, p.outcome == "expired").values(moved))
        connection.execute(update(pairs).where(*same, ~settled).values({p.expires_at: NEVER}))
        return
    connection.execute(update(pairs).where(*same, or_(again, and_(learnt, p.captures == 0))).values(moved))
    sooner: dict[Any, Any] = {
        p.sent_at: told.sent_at, p.expires_at: told.expires_at, p.due_at: p.due_at + told.sent_at - p.first_seen_at,
    }  # fmt: skip
    connection.execute(update(pairs).where(*same, learnt, p.captures > 0).values(sooner))


def requeue(
    connection: Connection, *, outcome: str, now: float, reason: str | None = None, workspace: str | None = None
) -> int:
    """Open again the pairs that ended as ``outcome`` (for ``reason``). Those past their time will not expire again."""
    which: list[ColumnElement[bool]] = [pairs.c.state == "settled", pairs.c.outcome == outcome]
    if reason is not None:
        which.append(pairs.c.reason == reason)
    if workspace is not None:
        which.append(pairs.c.workspace == workspace)
    values: dict[Any, Any] = {
        pairs.c.state: "due", pairs.c.due_at: now, pairs.c.deferrals: 0, pairs.c.ending_at: None, pairs.c.yields: 0,
        pairs.c.outcome: None, pairs.c.reason: None, pairs.c.verdict: None,
        pairs.c.expires_at: case((pairs.c.expires_at <= now, NEVER), else_=pairs.c.expires_at),
    }  # fmt: skip
    return connection.execute(update(pairs).where(*which).values(values)).rowcount


def hurry(connection: Connection, workspace: str) -> None:
    """Make deferred readings due at once, as if they had never been deferred: a new run takes them up."""
    deferred = and_(pairs.c.workspace == workspace, pairs.c.state == "waiting", pairs.c.deferrals > literal_column("0"))
    connection.execute(update(pairs).where(deferred).values(due_at=0.0, deferrals=0))


def _named(connection: Connection, named: Iterable[Pair]) -> ColumnElement[bool]:
    """Tell whether a pair is among those named."""
    given = handed_over(connection, _IDENTITY, [(each.workspace, each.campaign_id, each.send_id) for each in named])
    return pairs.c.id.in_(
        select(pairs.c.id).join(given, and_(*(column == given.c[column.name] for column in _IDENTITY)))
    )


def pause(connection: Connection, named: Sequence[Pair]) -> int:
    """Leave pairs alone until ``unpause``; those that are leased right now are not touched. Gives how many."""
    resting = pairs.c.state.in_(("due", "waiting"))
    return connection.execute(update(pairs).where(resting, _named(connection, named)).values(state="paused")).rowcount


def unpause(connection: Connection, named: Sequence[Pair]) -> int:
    """Take paused pairs up again where they were. Gives how many."""
    paused = and_(pairs.c.state == "paused", _named(connection, named))
    # What has fallen due by plan meanwhile is woken by the next claim.
    return connection.execute(update(pairs).where(paused).values(state=resting(pairs.c.due_at, 0))).rowcount


def remove(connection: Connection, named: Sequence[Pair]) -> int:
    """Forget pairs with all their outcomes; those that are leased right now are not touched. Gives how many.

    Their rows stay in the parts: those never change.
    """
    return _forget(connection, and_(pairs.c.state != "leased", _named(connection, named)))


def prune(connection: Connection, *, settled_before: float) -> int:
    """Forget settled pairs that expired before a time. Gives how many."""
    return _forget(connection, and_(pairs.c.state == "settled", pairs.c.expires_at < settled_before))


def _forget(connection: Connection, which: ColumnElement[bool]) -> int:
    gone = list(connection.execute(select(pairs.c.id).where(which)).scalars())
    for start in range(0, len(gone), 500):
        page = gone[start : start + 500]
        connection.execute(delete(outcomes).where(outcomes.c.pair_id.in_(page)))
        connection.execute(delete(pairs).where(pairs.c.id.in_(page)))
    return len(gone)
