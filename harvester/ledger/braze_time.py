"""Stores the difference of the clocks, and corrects the ledger once a response has confirmed the time."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, insert, or_, select, update

from harvester.clock import LARGE_DIFFERENCE_SECONDS
from harvester.ledger.database import Transaction
from harvester.ledger.filters import DEFERRED, DUE, EXPIRED, SINCE, UNSETTLED, WAITING, released_state
from harvester.ledger.plans import get_plan
from harvester.ledger.schema import NEVER, differences, pairs
from harvester.model import DAY_SECONDS, Pair
from harvester.schedule import DEFERRAL_MAX_SECONDS, IMMEDIATE, ONCE, ROUNDING_SECONDS

SMALL_CHANGE_SECONDS = 5.0


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

    def still_holds(self, machine: float) -> bool:
        """Return whether it can apply to a machine's clock: the current time must not be before the measurement."""
        return machine - self.seconds >= self.measured_at - LARGE_DIFFERENCE_SECONDS

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
    tx.execute(delete(differences))
    tx.execute(insert(differences).values(seconds=measured.seconds, measured_at=measured.measured_at))


def find_time_probe(tx: Transaction, workspace: str) -> Pair | None:
    """Find the pair to request in order to confirm the time: the open one with the nearest deadline.

    While the time is not confirmed, only a pair that depends on it counts: one that seems to have expired, or whose
    expiry may be a mistake.
    """
    of_workspace = pairs.c.workspace == workspace
    if tx.confirmed:
        return _first_of(tx, and_(of_workspace, UNSETTLED))
    seems_expired = and_(of_workspace, UNSETTLED, pairs.c.expires_at <= tx.now)
    by_mistake = and_(of_workspace, EXPIRED, pairs.c.expires_at > tx.now)
    return _first_of(tx, seems_expired) or _first_of(tx, by_mistake)


def _first_of(tx: Transaction, which: ColumnElement[bool]) -> Pair | None:
    identity = (pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id)
    row = tx.execute(select(*identity).where(which).order_by(pairs.c.expires_at).limit(1)).first()
    return None if row is None else Pair(*row)


def correct_times(tx: Transaction, workspace: str) -> int:
    """Correct the effects of a wrong clock; returns the number of pairs that had expired by mistake.

    Pairs that expired too early are reopened. Readings that became due too early wait again, and readings that were
    deferred for too long become due. A first sight in the future becomes now, for pairs without a send time.
    """
    reopened = _reopen_expired(tx, workspace)
    _move_first_seen(tx, workspace)
    _plan_again(tx, workspace)
    now, soon = tx.now, tx.now + LARGE_DIFFERENCE_SECONDS
    of_workspace = pairs.c.workspace == workspace
    too_long = and_(of_workspace, DEFERRED, pairs.c.due_at > soon + DEFERRAL_MAX_SECONDS)
    tx.execute(update(pairs).where(too_long).values(due_at=now))
    too_early = and_(of_workspace, DUE, pairs.c.reading != ONCE, pairs.c.due_at > soon)
    tx.execute(update(pairs).where(too_early).values(state="waiting"))
    return reopened


def _plan_again(tx: Transaction, workspace: str) -> None:
    """Plan the first reading again of pairs that were enqueued by a clock that was ahead.

    All readings that seemed overdue were replaced by one, due at the time of that clock: later than its age plans it.
    """
    p, readings = pairs.c, get_plan(tx, workspace).readings
    if not readings:
        return
    latest = case(
        {name: SINCE + age + ROUNDING_SECONDS for name, age in (*readings, (IMMEDIATE, 0.0))},
        value=p.reading,
        else_=NEVER,
    )
    first_name, first_age = readings[0]
    planned = and_(p.workspace == workspace, or_(DUE, WAITING), p.deferrals == 0, p.sent_at.is_not(None))
    too_late = and_(planned, p.due_at > tx.now + LARGE_DIFFERENCE_SECONDS, p.due_at > latest)
    first: dict[Any, Any] = {
        p.reading: first_name,
        p.due_at: SINCE + first_age,
        p.state: "waiting",
        p.low_priority: 0,
        p.first_seen_at: case((p.first_seen_at > tx.now, tx.now), else_=p.first_seen_at),
    }
    tx.execute(update(pairs).where(too_late).values(first))


def _reopen_expired(tx: Transaction, workspace: str) -> int:
    """Reopen expired pairs whose window is still open."""
    p, now = pairs.c, tx.now
    by_mistake = and_(p.workspace == workspace, EXPIRED, p.expires_at > now)
    opened: dict[Any, Any] = {
        p.state: released_state(p.due_at, now),
        p.outcome: None,
        p.deferrals: 0,
        p.ending_at: None,
        p.low_priority: 0,
        p.first_seen_at: case((p.first_seen_at > now, now), else_=p.first_seen_at),
    }
    return tx.execute(update(pairs).where(by_mistake).values(opened)).rowcount


def _move_first_seen(tx: Transaction, workspace: str) -> None:
    """Set the first sight of open pairs without a send time from the future to now."""
    p, now, soon = pairs.c, tx.now, tx.now + LARGE_DIFFERENCE_SECONDS
    longest = get_plan(tx, workspace).expires_at(soon)
    ahead = and_(p.workspace == workspace, UNSETTLED, p.expires_at > longest, p.expires_at < NEVER, p.sent_at.is_(None))
    seen_now: dict[Any, Any] = {
        p.first_seen_at: now,
        p.expires_at: p.expires_at - p.first_seen_at + now,
        p.due_at: p.due_at - p.first_seen_at + now,
    }
    tx.execute(update(pairs).where(ahead, p.first_seen_at > soon).values(seen_now))
