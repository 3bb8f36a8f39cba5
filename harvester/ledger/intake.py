"""Adds, requeues and removes pairs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, select, update

from harvester.ledger import plans
from harvester.ledger.database import Database, Transaction
from harvester.ledger.enqueue import EnqueueResult, enqueue, enqueue_new
from harvester.ledger.filters import DEFERRED, is_named
from harvester.ledger.json_rows import encode_rows, encode_values, rows_as_table
from harvester.ledger.locks import locked
from harvester.ledger.schema import IDENTITY, NEVER, outcomes, pairs
from harvester.model import Pair, SentPair
from harvester.schedule import ReadingPlan


class Intake:
    """Adds pairs to the ledger, and changes their plans. Every method raises ``LedgerError``."""

    def __init__(self, database: Database) -> None:
        """Write to ``database``."""
        self._database = database

    async def enqueue(
        self, arrivals: Sequence[SentPair], *, once: bool = False, forced: bool = False, trust_clock: bool = False
    ) -> EnqueueResult:
        """Add pairs, to be read by the plan of their workspace or ``once``; a known pair stays one pair.

        ``forced`` pairs do not expire, and expired ones are opened again. While no response has confirmed the time, a
        settled pair whose retention seems over is not read again, except with ``trust_clock``.
        """
        return await self._database.write(enqueue, arrivals, once=once, forced=forced, trust_clock=trust_clock)

    async def enqueue_new(self, arrivals: Sequence[SentPair]) -> int:
        """Add pairs that the ledger does not contain, to be read once; returns how many. Other pairs do not change."""
        return await self._database.write(enqueue_new, arrivals)

    async def set_plan(self, workspace: str, plan: ReadingPlan) -> None:
        """Set the plan of a workspace's readings; readings that are already planned stay."""
        await self.set_plans({workspace: plan})

    async def set_plans(self, by_workspace: Mapping[str, ReadingPlan]) -> None:
        """Set the plans of several workspaces in one transaction, as ``set_plan`` does."""
        await self._database.write(plans.set_plans, by_workspace)

    async def requeue(self, *, outcome: str, reason: str | None = None, workspace: str | None = None) -> int:
        """Reopen pairs that ended as ``outcome`` (for ``reason``); returns their number.

        Pairs whose time is over do not expire again.
        """
        return await self._database.write(requeue, outcome=outcome, reason=reason, workspace=workspace)

    async def requeue_pair(self, pair: Pair) -> bool:
        """Reopen a pair that was rejected or has expired, as ``requeue`` does. False if it is in another state."""
        return await self._database.write(requeue_pair, pair)

    async def reset_deferrals(self, workspaces: Sequence[str]) -> None:
        """Make deferred readings due at once, as if they had never been deferred, for a new run."""
        await self._database.write(reset_deferrals, workspaces)

    async def remove(self, named: Sequence[Pair]) -> int:
        """Delete pairs and their outcomes, except pairs whose reading is leased; returns their number.

        Their rows stay in the parts, which never change.
        """
        return await self._database.write(remove, named)


def requeue(tx: Transaction, *, outcome: str, reason: str | None, workspace: str | None) -> int:
    """Reopen pairs that ended with an outcome."""
    which: list[ColumnElement[bool]] = [pairs.c.state == "settled", pairs.c.outcome == outcome]
    if reason is not None:
        which.append(pairs.c.reason == reason)
    if workspace is not None:
        which.append(pairs.c.workspace == workspace)
    return _reopen(tx, which)


def requeue_pair(tx: Transaction, pair: Pair) -> bool:
    """Reopen a pair that was rejected or has expired."""
    identity = zip(IDENTITY, (pair.workspace, pair.campaign_id, pair.send_id), strict=True)
    ended = and_(pairs.c.state == "settled", pairs.c.outcome.in_(("rejected", "expired")))
    return _reopen(tx, [ended, *(column == value for column, value in identity)]) == 1


def _reopen(tx: Transaction, which: Iterable[ColumnElement[bool]]) -> int:
    values: dict[Any, Any] = {
        pairs.c.state: "due",
        pairs.c.due_at: tx.now,
        pairs.c.deferrals: 0,
        pairs.c.ending_at: None,
        pairs.c.low_priority: 0,
        pairs.c.outcome: None,
        pairs.c.reason: None,
        pairs.c.verdict: None,
        pairs.c.expires_at: case((pairs.c.expires_at <= tx.now, NEVER), else_=pairs.c.expires_at),
    }
    return tx.execute(update(pairs).where(locked(tx.dialect, and_(*which))).values(values)).rowcount


def reset_deferrals(tx: Transaction, workspaces: Sequence[str]) -> None:
    """Make the deferred readings of some workspaces due at once."""
    deferred = and_(is_named(tx.dialect), DEFERRED)
    which = locked(tx.dialect, deferred)
    tx.execute(update(pairs).where(which).values(due_at=0.0, deferrals=0), encode_values(workspaces))


def remove(tx: Transaction, named: Iterable[Pair]) -> int:
    """Delete pairs whose reading is not leased."""
    wanted = rows_as_table(tx.dialect, IDENTITY)
    same = and_(*(column == wanted.c[column.name] for column in IDENTITY))
    values = encode_rows([(each.workspace, each.campaign_id, each.send_id) for each in named])
    which = and_(pairs.c.state != "leased", pairs.c.id.in_(select(pairs.c.id).join(wanted, same)))
    return delete_pairs(tx, which, values)


def delete_pairs(tx: Transaction, which: ColumnElement[bool], values: Mapping[str, object] | None = None) -> int:
    """Delete pairs and their outcomes, page by page; returns how many."""
    found = list(tx.execute(select(pairs.c.id).where(which).order_by(pairs.c.id).with_for_update(), values).scalars())
    for start in range(0, len(found), 500):
        page = found[start : start + 500]
        tx.execute(delete(outcomes).where(outcomes.c.pair_id.in_(page)))
        tx.execute(delete(pairs).where(pairs.c.id.in_(page)))
    return len(found)
