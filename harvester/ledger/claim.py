"""Claims a batch: leases due readings, nearest deadline first, low-priority readings last."""

import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, insert, literal, or_, select, update

from harvester.clock import LARGE_DIFFERENCE_SECONDS
from harvester.ledger.database import Transaction
from harvester.ledger.filters import DEFERRED, DUE, SINCE, TRIED, WAITING
from harvester.ledger.json_rows import select_as_json
from harvester.ledger.plans import get_plan
from harvester.ledger.probes import find_probe
from harvester.ledger.schema import batches, pairs
from harvester.ledger.upkeep import expire, schedule_due
from harvester.model import DAY_SECONDS, GRACE_SECONDS, Batch, Pair, Probe, Reading
from harvester.schedule import ONCE, ReadingPlan


def claim(tx: Transaction, workspace: str, *, owner: str, limit: int, probe: Probe | None) -> Batch | None:
    """Lease due readings as one batch. None when nothing is due.

    A ``probe`` narrows the claim to the one pair that it describes. While the time is not confirmed,
    nothing is stored that depends on it: neither what fell due, nor what is requested. Pairs that seem to have expired
    are left alone then.
    """
    plan, batch_id = get_plan(tx, workspace), _new_batch_id(tx.now)
    if tx.confirmed:
        schedule_due(tx, workspace, plan)
        expire(tx, workspace)
    which = [pairs.c.workspace == workspace]
    ready = [DUE]
    if not tx.confirmed:
        which.append(or_(pairs.c.expires_at > tx.now, ~TRIED))
        ready.append(and_(WAITING, pairs.c.due_at <= tx.now))
    if probe is not None:
        ready = [pairs.c.id == find_probe(tx, workspace, probe)]
    name, ending_at = _latest_due(plan, tx.now), _question(plan, tx.now)
    leasing: dict[Any, Any] = {pairs.c.state: "leased", pairs.c.batch_id: batch_id}
    if tx.confirmed:
        leasing |= {pairs.c.reading: name, pairs.c.ending_at: ending_at}
        name, ending_at = pairs.c.reading, pairs.c.ending_at
    if not any(_lease(tx, leasing, each, *which, limit=limit) for each in ready):
        return None
    readings = _list_leased(tx, workspace, batch_id, name, ending_at)
    token = secrets.token_hex(8)
    tx.execute(
        insert(batches).values(
            id=batch_id, workspace=workspace, owner=owner, token=token, state="open", claimed_at=tx.now,
            lease_until=tx.lease_until,
        )
    )  # fmt: skip
    return Batch(id=batch_id, token=token, workspace=workspace, claimed_at=tx.now, readings=readings)


def _new_batch_id(now: float) -> str:
    """Return a time, so that ids sort by claim, and random digits, so that they are unique."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(4)}"


def _lease(tx: Transaction, values: dict[Any, Any], *which: ColumnElement[bool], limit: int) -> int:
    """Lease the first due readings; returns their number."""
    nearest = (
        select(pairs.c.id).where(*which).order_by(pairs.c.low_priority, pairs.c.expires_at, pairs.c.id).limit(limit)
        .with_for_update(skip_locked=True)
    )  # fmt: skip
    return tx.execute(update(pairs).where(pairs.c.id.in_(nearest.scalar_subquery())).values(values)).rowcount


def _list_leased(
    tx: Transaction, workspace: str, batch_id: str, name: ColumnElement[Any], ending_at: ColumnElement[Any]
) -> tuple[Reading, ...]:
    """Return the readings that a batch has leased, the nearest deadline first."""
    p = pairs.c
    columns = (p.id, p.campaign_id, p.send_id, name, ending_at, p.expires_at, SINCE, p.round)
    leased = select_as_json(tx, columns, and_(p.batch_id == batch_id, p.state == "leased"))
    readings = [
        Reading(
            pair_id, Pair(workspace, campaign_id, send_id), asked, float(ending), float(expires_at) - GRACE_SECONDS,
            float(since), round_,
        )
        for pair_id, campaign_id, send_id, asked, ending, expires_at, since, round_ in leased
    ]  # fmt: skip
    return tuple(sorted(readings, key=lambda each: (each.deadline, each.pair_id)))


def _latest_due(plan: ReadingPlan, now: float) -> ColumnElement[str]:
    """Return the latest due reading of a plan: one reading replaces all that are overdue.

    Never an earlier one than that which was planned: a clock that was set back would ask again for a reading that was
    captured.
    """
    passed = [
        (or_(pairs.c.reading == name, SINCE + age <= now), literal(name)) for name, age in reversed(plan.readings)
    ]
    return case((pairs.c.reading == ONCE, pairs.c.reading), *passed, else_=pairs.c.reading)


def _question(plan: ReadingPlan, now: float) -> ColumnElement[float]:
    """Return the end of the days to request.

    A deferred reading requests the same days again, for a day; after that, newer ones are worth more.
    """
    recent = and_(pairs.c.ending_at > now - DAY_SECONDS, pairs.c.ending_at <= now + LARGE_DIFFERENCE_SECONDS)
    return case((and_(pairs.c.reading == _latest_due(plan, now), recent), pairs.c.ending_at), else_=now)


def get_next_due_at(tx: Transaction, workspace: str, *, max_deferrals: int | None = None) -> float | None:
    """Return when the next reading falls due that a claim would lease, 0 for now; None when none is planned.

    With ``max_deferrals`` only readings count that are due or were deferred, though not more often than that. Where the
    time is not confirmed, pairs that seem to have expired do not count.
    """
    # Two searches of an index: for both states at once, the database would read every pair there is.
    due = and_(pairs.c.workspace == workspace, DUE)
    waiting = and_(pairs.c.workspace == workspace, WAITING)
    if max_deferrals is not None:
        due = and_(due, pairs.c.deferrals <= max_deferrals)
        waiting = and_(waiting, DEFERRED, pairs.c.deferrals <= max_deferrals)
    if not tx.confirmed:
        left = or_(pairs.c.expires_at > tx.now, ~TRIED)
        due, waiting = and_(due, left), and_(waiting, left)
    if tx.execute(select(pairs.c.id).where(due).limit(1)).first():
        return 0.0
    due_at: float | None = tx.execute(select(func.min(pairs.c.due_at)).where(waiting)).scalar_one()
    return due_at
