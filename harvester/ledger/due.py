"""When readings fall due. Every function only reads."""

from collections.abc import Sequence

from sqlalchemy import and_, func, literal, select

from harvester.ledger.database import Transaction
from harvester.ledger.filters import DEFERRED, DUE, WAITING, is_in_time
from harvester.ledger.json_rows import rows_as_table, select_as_json
from harvester.ledger.schema import pairs


def list_due(tx: Transaction, workspaces: Sequence[str]) -> dict[str, float]:
    """Return for each workspace when its next reading falls due, 0 for now; one without a planned reading is left out.

    Pairs that have expired and wait for their end do not count, since no claim leases them.
    """
    named = rows_as_table(tx, (pairs.c.workspace,), [(each,) for each in workspaces])
    mine = and_(pairs.c.workspace == named.c.workspace, is_in_time(tx.now))
    # Two searches of an index: for both states at once, the database would read every pair there is.
    due = select(literal(0.0)).where(mine, DUE).limit(1).correlate(named).scalar_subquery()
    next_due = select(pairs.c.due_at).where(mine, WAITING).order_by(pairs.c.due_at).limit(1).correlate(named)
    each = select(named.c.workspace, func.coalesce(due, next_due.scalar_subquery()).label("due_at")).subquery()
    rows = select_as_json(tx, (each.c.workspace, each.c.due_at), each.c.due_at.is_not(None))
    return {workspace: 0.0 if float(due_at) <= tx.now else float(due_at) for workspace, due_at in rows}


def get_next_due_at(tx: Transaction, workspace: str, *, max_deferrals: int | None = None) -> float | None:
    """Return when the next reading falls due that a claim would lease, 0 for now; None when none is planned.

    With ``max_deferrals`` only readings count that are due or were deferred, though not more often than that. Where the
    time is not confirmed, pairs that seem to have expired do not count.
    """
    due = and_(pairs.c.workspace == workspace, DUE)
    waiting = and_(pairs.c.workspace == workspace, WAITING)
    if max_deferrals is not None:
        due = and_(due, pairs.c.deferrals <= max_deferrals)
        waiting = and_(waiting, DEFERRED, pairs.c.deferrals <= max_deferrals)
    if not tx.confirmed:
        due, waiting = and_(due, is_in_time(tx.now)), and_(waiting, is_in_time(tx.now))
    if tx.execute(select(pairs.c.id).where(due).limit(1)).first():
        return 0.0
    due_at: float | None = tx.execute(select(func.min(pairs.c.due_at)).where(waiting)).scalar_one()
    return due_at
