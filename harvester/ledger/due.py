"""When readings fall due, and the statement that makes them due."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Integer, Select, String, Update, and_, bindparam, func, literal, select, update

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import DEFERRED, DUE, IN_TIME, NOW, WAITING, is_named
from harvester.ledger.json_rows import decode_rows, encode_values, select_as_json, values_as_table
from harvester.ledger.locks import locked
from harvester.ledger.schema import pairs

PAGE = 2000
"""How many readings become due in one transaction. After an outage, all readings of a workspace may be overdue."""


@dataclass(frozen=True, slots=True)
class DueCount:
    """How many readings of a workspace are due at one time."""

    due_at: float
    readings: int


@cache
def make_due(dialect: Dialect) -> Update:
    """Change a page of overdue waiting readings of some workspaces to the state ``due``."""
    late = and_(WAITING, is_named(dialect), pairs.c.due_at <= NOW)
    return update(pairs).where(locked(dialect, late, skip=True, most=PAGE)).values(state="due")


def list_due(tx: Transaction, workspaces: Sequence[str]) -> dict[str, float]:
    """Return for each workspace when its next reading falls due, 0 for now; one without a planned reading is left out.

    Pairs that have expired and wait for their end do not count, since no claim leases them.
    """
    rows = decode_rows(tx.execute(_select_due(tx.dialect), encode_values(workspaces)))
    return {workspace: 0.0 if float(due_at) <= tx.now else float(due_at) for workspace, due_at in rows}


@cache
def _select_due(dialect: Dialect) -> Select[str]:
    """Select each workspace that has a planned reading, and when its next one falls due."""
    named = values_as_table(dialect, pairs.c.workspace)
    mine = and_(pairs.c.workspace == named.c.workspace, IN_TIME)
    # Two searches of an index: for both states at once, the database would read every pair there is.
    due = select(literal(0.0)).where(mine, DUE).limit(1).correlate(named).scalar_subquery()
    next_due = select(pairs.c.due_at).where(mine, WAITING).order_by(pairs.c.due_at).limit(1).correlate(named)
    each = select(named.c.workspace, func.coalesce(due, next_due.scalar_subquery()).label("due_at")).subquery()
    return select_as_json(dialect, (each.c.workspace, each.c.due_at), each.c.due_at.is_not(None))


def get_next_due_at(tx: Transaction, workspace: str, *, max_deferrals: int | None = None) -> float | None:
    """Return when the next reading falls due that a claim would lease, 0 for now; None when none is planned.

    With ``max_deferrals`` only readings count that are due or were deferred, though not more often than that. Where the
    time is not confirmed, pairs that seem to have expired do not count.
    """
    statements = _select_next_due(deferred=max_deferrals is not None, confirmed=tx.confirmed)
    values = {"of_workspace": workspace, "max_deferrals": max_deferrals}
    if tx.execute(statements[0], values).first():
        return 0.0
    due_at: float | None = tx.execute(statements[1], values).scalar_one()
    return due_at


@cache
def _select_next_due(*, deferred: bool, confirmed: bool) -> tuple[Select[int], Select[float]]:
    """Select one due pair of a workspace, and when its next waiting reading falls due."""
    mine = pairs.c.workspace == bindparam("of_workspace", type_=String)
    due, waiting = and_(mine, DUE), and_(mine, WAITING)
    if deferred:
        few = pairs.c.deferrals <= bindparam("max_deferrals", type_=Integer)
        due, waiting = and_(due, few), and_(waiting, DEFERRED, few)
    if not confirmed:
        due, waiting = and_(due, IN_TIME), and_(waiting, IN_TIME)
    return select(pairs.c.id).where(due).limit(1), select(func.min(pairs.c.due_at)).where(waiting)


def list_planned(tx: Transaction, workspace: str, *, limit: int) -> list[DueCount]:
    """List the next due times of a workspace with the number of readings, the earliest first; 0 stands for now."""
    due = select(literal(0.0).label("due_at"), func.count().label("readings")).where(
        pairs.c.workspace == workspace, DUE, IN_TIME
    )
    waiting = (
        select(pairs.c.due_at, func.count())
        .where(pairs.c.workspace == workspace, WAITING)
        .group_by(pairs.c.due_at)
        .order_by(pairs.c.due_at)
        .limit(limit)
    )
    found = [DueCount(*row) for each in (due, waiting) for row in tx.execute(each)]
    return [each for each in found if each.readings][:limit]
