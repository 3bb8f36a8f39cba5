"""Lists the pairs that were rejected or have expired. Every function only reads, and a page takes milliseconds."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, String, bindparam, func, literal_column, select

from harvester.ledger.database import Transaction
from harvester.ledger.schema import outcomes, pairs
from harvester.model import Pair

_OUTCOMES: dict[str, ColumnElement[str]] = {name: literal_column(f"'{name}'") for name in ("rejected", "expired")}
"""Literals, because a database uses a partial index only if it can see its condition."""


@dataclass(frozen=True, slots=True)
class FailedPair:
    """A pair that was rejected or has expired. ``order`` only grows in a list, so it is a bookmark.

    ``reason`` and ``detail`` are empty for an expired pair. ``ended_at`` is None if that time is not known.
    """

    order: int
    pair: Pair
    outcome: str
    reason: str
    detail: str
    ended_at: float | None


def list_failed(tx: Transaction, outcome: str, reason: str | None, *, after: int, limit: int) -> list[FailedPair]:
    """List pairs with an outcome and, if they were rejected, a reason, after the ``order`` of one."""
    values = {"reason": reason, "after": after, "most": limit}
    rows = tx.execute(_select_failed(outcome, has_reason=reason is not None), values)
    return [
        FailedPair(
            order=row.id,
            pair=Pair(row.workspace, row.campaign_id, row.send_id),
            outcome=outcome,
            reason=reason or "",
            detail=row.detail or "",
            ended_at=row.ended_at,
        )
        for row in rows
    ]


@cache
def _select_failed(outcome: str, *, has_reason: bool) -> Select[Any]:
    p = pairs.c
    same_reason = p.reason == bindparam("reason", type_=String) if has_reason else p.reason.is_(None)
    page = (
        select(p.id, p.workspace, p.campaign_id, p.send_id)
        .where(p.outcome == _OUTCOMES[outcome], same_reason, p.id > bindparam("after", type_=Integer))
        .order_by(p.id)
        .limit(bindparam("most", type_=Integer))
        .subquery()
    )
    o, later = outcomes.c, outcomes.alias("of_pair").c
    last = select(func.max(later.id)).where(later.pair_id == page.c.id).correlate(page).scalar_subquery()
    return select(page, o.detail, o.ended_at).select_from(page.outerjoin(outcomes, o.id == last)).order_by(page.c.id)
