"""Stores the difference of the clocks, and corrects the ledger once a response has confirmed the time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Float,
    Select,
    Update,
    UpdateBase,
    and_,
    bindparam,
    case,
    delete,
    insert,
    select,
    update,
)

from harvester.clock import LARGE_DIFFERENCE_SECONDS
from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import DUE, EXPIRED, LEASED, NOW, SINCE, UNSETTLED, is_named, released_state
from harvester.ledger.json_rows import encode_values, values_as_table
from harvester.ledger.locks import lock_ledger, locked
from harvester.ledger.plans import group_by_plan
from harvester.ledger.schema import NEVER, differences, pairs
from harvester.model import DAY_SECONDS, Pair
from harvester.schedule import DEFERRAL_MAX_SECONDS, IMMEDIATE, ONCE, ROUNDING_SECONDS, ReadingPlan

SMALL_CHANGE_SECONDS = 5.0

_SOON = NOW + LARGE_DIFFERENCE_SECONDS

_OVERDUE = and_(UNSETTLED, pairs.c.expires_at <= NOW)
"""Whether an open pair has expired by the present time."""

_BY_MISTAKE = and_(EXPIRED, pairs.c.expires_at > NOW)
"""Whether a pair is recorded as expired before its time."""


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """The seconds by which this machine's clock was ahead of Braze's, and when that was measured, by Braze's.

    It is ``outdated`` if this machine's clock has been set since.
    """

    seconds: float
    measured_at: float
    outdated: bool = False

    @property
    def current_seconds(self) -> float | None:
        """Return the seconds; None if they are outdated."""
        return None if self.outdated else self.seconds

    @property
    def is_large(self) -> bool:
        """Whether it is more than a measuring error."""
        return abs(self.seconds) > LARGE_DIFFERENCE_SECONDS

    def still_holds(self, machine_time: float) -> bool:
        """Return whether it can apply to the machine's clock: by it, the time must not be before the measurement."""
        return machine_time - self.seconds >= self.measured_at - LARGE_DIFFERENCE_SECONDS

    def should_replace(self, before: "ClockDifference") -> bool:
        """Return whether this measurement should replace an earlier one."""
        moved = abs(self.seconds - before.seconds) > SMALL_CHANGE_SECONDS
        return moved or self.measured_at - before.measured_at > DAY_SECONDS


def find_difference(tx: Transaction) -> ClockDifference | None:
    """Return the difference that was measured last; None if none was measured yet."""
    row = tx.execute(select(differences.c.seconds, differences.c.measured_at)).first()
    return None if row is None else ClockDifference(*row)


def save_difference(tx: Transaction, measured: ClockDifference) -> None:
    """Replace the stored difference."""
    lock_ledger(tx)
    tx.execute(delete(differences))
    tx.execute(insert(differences).values(seconds=measured.seconds, measured_at=measured.measured_at))


def find_time_probe(tx: Transaction, workspaces: Sequence[str]) -> Pair | None:
    """Find the pair to request in order to confirm the time: the open one with the nearest deadline.

    While the time is not confirmed, only a pair that depends on it counts: one that seems to have expired, or whose
    expiry may be a mistake.
    """
    if tx.confirmed:
        return _find_first(tx, workspaces, UNSETTLED)
    return _find_first(tx, workspaces, _OVERDUE) or _find_first(tx, workspaces, _BY_MISTAKE)


def has_overdue_pairs(tx: Transaction, workspace: str) -> bool:
    """Return whether a workspace has open pairs that have expired by the present time."""
    return _find_first(tx, [workspace], _OVERDUE) is not None


def _find_first(tx: Transaction, workspaces: Sequence[str], which: ColumnElement[bool]) -> Pair | None:
    """Find the pair that expires first among those of some workspaces."""
    row = tx.execute(_select_first(tx.dialect, which), encode_values(workspaces)).first()
    return None if row is None else Pair(*row)


@cache
def _select_first(dialect: Dialect, which: ColumnElement[bool]) -> Select[str, str, str]:
    """Select the first pair of some workspaces, with one search of an index for each workspace."""
    p, named = pairs.c, values_as_table(dialect, pairs.c.workspace)
    mine = select(p.id).where(p.workspace == named.c.workspace, which).order_by(p.expires_at).limit(1).correlate(named)
    firsts = select(mine.scalar_subquery().label("id")).select_from(named).subquery()
    found = select(p.workspace, p.campaign_id, p.send_id).where(p.id.in_(select(firsts.c.id)))
    return found.order_by(p.expires_at).limit(1)


def correct_times(tx: Transaction, workspaces: Sequence[str]) -> dict[str, int]:
    """Correct the effects of a wrong clock; returns for each workspace how many pairs had expired by mistake.

    Pairs that expired too early are reopened. Readings that became due too early wait again, and readings that were
    deferred for too long become due. For pairs without a send time, a ``first_seen_at`` in the future becomes now.
    """
    names = encode_values(workspaces)
    reopened = Counter(tx.execute(_reopen_expired(tx.dialect), names).scalars())
    plans = group_by_plan(tx, workspaces)
    _correct_first_seen(tx, plans)
    for plan, followers in plans.items():
        if plan.readings:
            tx.execute(_plan_first_reading(tx.dialect, plan), encode_values(followers))
    for statement in _correct_due(tx.dialect):
        tx.execute(statement, names)
    return dict(reopened)


def correct_first_seen(tx: Transaction, workspaces: Sequence[str]) -> None:
    """Change a ``first_seen_at`` in the future to the current time, for open pairs without a send time."""
    _correct_first_seen(tx, group_by_plan(tx, workspaces))


def _correct_first_seen(tx: Transaction, plans: Mapping[ReadingPlan, Sequence[str]]) -> None:
    for plan, followers in plans.items():
        longest = plan.expires_at(tx.now + LARGE_DIFFERENCE_SECONDS)
        tx.execute(_move_first_seen(tx.dialect), encode_values(followers) | {"longest": longest})


@cache
def _correct_due(dialect: Dialect) -> tuple[Update, Update]:
    """Make readings due that were deferred for too long, and let those wait that became due too early."""
    named = is_named(dialect)
    too_long = and_(named, UNSETTLED, pairs.c.deferrals > 0, pairs.c.due_at > _SOON + DEFERRAL_MAX_SECONDS)
    too_early = and_(named, DUE, pairs.c.reading != ONCE, pairs.c.due_at > _SOON)
    return (
        update(pairs).where(locked(dialect, too_long)).values(due_at=NOW),
        update(pairs).where(locked(dialect, too_early)).values(state="waiting"),
    )


@lru_cache
def _plan_first_reading(dialect: Dialect, plan: ReadingPlan) -> Update:
    """Plan again the first reading of pairs that were enqueued by a clock that was ahead.

    All readings that seemed overdue were replaced by one, due at the time of that clock: later than its age plans it.
    One that is leased is planned again too: its request is void, and it will be released unchanged.
    """
    p, readings = pairs.c, plan.readings
    latest = case(
        {name: SINCE + age + ROUNDING_SECONDS for name, age in (*readings, (IMMEDIATE, 0.0))},
        value=p.reading,
        else_=NEVER,
    )
    first_name, first_age = readings[0]
    planned = and_(is_named(dialect), UNSETTLED, p.deferrals == 0, p.sent_at.is_not(None))
    too_late = and_(planned, p.due_at > _SOON, p.due_at > latest)
    first: dict[Any, Any] = {
        p.reading: first_name,
        p.due_at: SINCE + first_age,
        p.state: case((LEASED, p.state), else_="waiting"),
        p.low_priority: 0,
        p.first_seen_at: case((p.first_seen_at > NOW, NOW), else_=p.first_seen_at),
    }
    return update(pairs).where(locked(dialect, too_late)).values(first)


@cache
def _reopen_expired(dialect: Dialect) -> UpdateBase:
    """Reopen expired pairs whose retention is not over; returns the workspace of each."""
    p = pairs.c
    by_mistake = and_(is_named(dialect), _BY_MISTAKE)
    opened: dict[Any, Any] = {
        p.state: released_state(p.due_at),
        p.outcome: None,
        p.deferrals: 0,
        p.ending_at: None,
        p.low_priority: 0,
        p.first_seen_at: case((p.first_seen_at > NOW, NOW), else_=p.first_seen_at),
    }
    return update(pairs).where(locked(dialect, by_mistake)).values(opened).returning(p.workspace)


@cache
def _move_first_seen(dialect: Dialect) -> Update:
    p = pairs.c
    longest: BindParameter[float] = bindparam("longest", type_=Float)
    no_time = and_(is_named(dialect), UNSETTLED, p.expires_at > longest, p.expires_at < NEVER, p.sent_at.is_(None))
    seen_now: dict[Any, Any] = {
        p.first_seen_at: NOW,
        p.expires_at: p.expires_at - p.first_seen_at + NOW,
        p.due_at: p.due_at - p.first_seen_at + NOW,
    }
    return update(pairs).where(locked(dialect, and_(no_time, p.first_seen_at > _SOON))).values(seen_now)
