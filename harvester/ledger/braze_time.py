"""Stores the difference of the clocks, and corrects the ledger once an answer has confirmed the time.

Each verb is a function over one open transaction. Nothing here commits, waits or reads a clock: time is an argument.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, case, delete, insert, literal_column, select, update

from harvester.clock import LARGE_DIFFERENCE_SECONDS
from harvester.ledger.books import UNSETTLED
from harvester.ledger.plans import plan_of, resting
from harvester.ledger.schema import NEVER, differences, pairs
from harvester.model import DAY_SECONDS, Pair
from harvester.schedule import DEFERRAL_MAX_SECONDS, ONCE

SMALL_CHANGE_SECONDS = 5.0

_EXPIRED = pairs.c.outcome == literal_column("'expired'")
_WAITING = pairs.c.state == literal_column("'waiting'")
_DUE = pairs.c.state == literal_column("'due'")


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
        """Return the seconds; None if they no longer apply."""
        return None if self.outdated else self.seconds

    def still_holds(self, machine: float) -> bool:
        """Return whether it may apply to a machine clock: by it, the present is not before the measurement."""
        return machine - self.seconds >= self.measured_at - LARGE_DIFFERENCE_SECONDS

    def tells_more_than(self, before: "ClockDifference") -> bool:
        """Return whether it should replace an earlier measurement."""
        moved = abs(self.seconds - before.seconds) > SMALL_CHANGE_SECONDS
        return moved or self.measured_at - before.measured_at > DAY_SECONDS


def difference(connection: Connection) -> ClockDifference | None:
    """Give the difference that was measured last; None where none ever was."""
    row = connection.execute(select(differences.c.seconds, differences.c.measured_at)).first()
    return None if row is None else ClockDifference(*row)


def keep_difference(connection: Connection, measured: ClockDifference) -> None:
    """Keep a difference instead of the one before."""
    connection.execute(delete(differences))
    connection.execute(insert(differences).values(seconds=measured.seconds, measured_at=measured.measured_at))


def in_question(connection: Connection, workspace: str, *, now: float) -> Pair | None:
    """Return a pair that needs a confirmed time: it seems to have expired, or to be expired by mistake."""
    mine = pairs.c.workspace == workspace
    seems_expired = select(pairs).where(mine, UNSETTLED, pairs.c.expires_at <= now)
    by_mistake = select(pairs).where(mine, _EXPIRED, pairs.c.expires_at > now)
    for each in (seems_expired, by_mistake):
        if row := connection.execute(each.order_by(pairs.c.expires_at).limit(1)).first():
            return Pair(workspace, row.campaign_id, row.send_id)
    return None


def nearest_open(connection: Connection, workspace: str) -> Pair | None:
    """Give the open pair whose deadline is the nearest."""
    nearest = select(pairs).where(pairs.c.workspace == workspace, UNSETTLED).order_by(pairs.c.expires_at).limit(1)
    row = connection.execute(nearest).first()
    return None if row is None else Pair(workspace, row.campaign_id, row.send_id)


def correct(connection: Connection, workspace: str, *, now: float) -> int:
    """Undo what a wrong clock has done, now that the time is confirmed. Gives how many pairs had expired by mistake.

    Expired pairs whose time is still to come are open again. What fell due too early waits again, and what was put off
    for too long is due. A pair whose send's time is unknown was not first seen in the future.
    """
    p, soon = pairs.c, now + LARGE_DIFFERENCE_SECONDS
    mine = p.workspace == workspace
    again = and_(mine, _EXPIRED, p.expires_at > now)
    opened: dict[Any, Any] = {
        p.state: resting(p.due_at, now), p.outcome: None, p.deferrals: 0, p.ending_at: None, p.yields: 0,
        p.first_seen_at: case((p.first_seen_at > now, now), else_=p.first_seen_at),
    }  # fmt: skip
    count = connection.execute(update(pairs).where(again).values(opened)).rowcount
    longest = plan_of(connection, workspace).expires_at(soon)
    ahead = and_(mine, UNSETTLED, p.expires_at > longest, p.expires_at < NEVER, p.sent_at.is_(None))
    seen_now: dict[Any, Any] = {
        p.first_seen_at: now, p.expires_at: p.expires_at - p.first_seen_at + now,
        p.due_at: p.due_at - p.first_seen_at + now,
    }  # fmt: skip
    connection.execute(update(pairs).where(ahead, p.first_seen_at > soon).values(seen_now))
    too_long = and_(mine, _WAITING, p.deferrals > literal_column("0"), p.due_at > soon + DEFERRAL_MAX_SECONDS)
    connection.execute(update(pairs).where(too_long).values(due_at=now))
    too_early = and_(mine, _DUE, p.reading != ONCE, p.due_at > soon)
    connection.execute(update(pairs).where(too_early).values(state="waiting"))
    return count
