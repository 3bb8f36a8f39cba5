"""Schedules and expires pairs, prunes the ledger, and stores the state of workspaces and places."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Float,
    Insert,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    insert,
    literal,
    select,
    update,
)

from harvester.ledger import braze_time, datasets, migrations, prune, serving
from harvester.ledger.counts import summarize_counts
from harvester.ledger.database import Database, Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.due import make_due
from harvester.ledger.filters import NOW, TRIED, UNSETTLED, is_named
from harvester.ledger.json_rows import encode_values, values_as_table
from harvester.ledger.locks import lock_ledger, locked
from harvester.ledger.plans import group_by_plan
from harvester.ledger.prune import Pruned
from harvester.ledger.schema import outcomes, paces, pairs, workspaces
from harvester.model import Pair

PAGE = 5000
"""How many pairs expire in one transaction."""


class Upkeep:
    """Schedules, expires and prunes pairs, and stores the state of workspaces. Every method raises ``LedgerError``."""

    def __init__(self, database: Database) -> None:
        """Write to ``database``."""
        self._database = database

    async def schedule_due(self, workspaces: Sequence[str], *, trust_clock: bool = False) -> int:
        """Make waiting readings due, and give final readings full priority; returns how many became due.

        While the time is not confirmed it changes nothing, except with ``trust_clock``: the clock may be wrong.
        """
        scheduled = 0
        while page := await self._database.write(_schedule_due, workspaces, trust_clock=trust_clock):
            scheduled += page
        return scheduled

    async def expire(self, workspaces: Sequence[str], *, trust_clock: bool = False) -> int:
        """Expire due pairs; returns their number.

        A pair that was enqueued in time gets one attempt even after it expired: the hour of its deletion is unknown.
        While the time is not confirmed it changes nothing, except with ``trust_clock``.
        """
        expired = 0
        while page := await self._database.write(_expire_page, workspaces, trust_clock=trust_clock):
            expired += page
        return expired

    async def has_overdue_pairs(self, workspace: str) -> bool:
        """Return whether a workspace has open pairs that have expired by the present time."""
        return await self._database.read(braze_time.has_overdue_pairs, workspace)

    async def prune(self, *, keep_days: float) -> Pruned:
        """Delete settled pairs that expired more than ``keep_days`` ago, and other history 15 days later.

        Deletes nothing while the time is not confirmed. If there are many old rows, a call deletes only some of them,
        and its result is not ``complete``.
        """
        return await prune.prune(self._database, keep_days=keep_days)

    async def summarize_counts(self) -> None:
        """Summarize the counts of pairs and readings, so that reports stay fast."""
        await self._database.write(summarize_counts)

    async def finish_migration(self) -> list[int]:
        """Remove what only earlier versions need, if none of their processes lives; returns the schemas of these steps.

        Raises ``LedgerError`` also if another transaction holds a table for more than two seconds.
        """
        if not await self._database.read(migrations.has_pending):
            return []
        return await self._database.write(migrations.try_contract_phases, self._database.list_living)

    async def halt(self, workspace: str, *, reason: str) -> None:
        """Store that a workspace is halted, and why. While it stays halted, the time of the halt does not change."""
        await self._database.write(_halt, workspace, reason=reason)

    async def resume(self, workspace: str) -> None:
        """Delete the halt of a workspace."""
        await self._database.write(_resume, workspace)

    async def save_paces(self, requests_per_second: Mapping[str, float]) -> None:
        """Store the requests per second that some workspaces sustain over hours, in one transaction."""
        await self._database.write(_save_paces, requests_per_second)

    async def save_dataset(self, place: str, dataset_id: str) -> None:
        """Store the id of the dataset at a place."""
        await self._database.write(datasets.save_dataset, place, dataset_id)

    async def correct_times(self, workspaces: Sequence[str]) -> dict[str, int]:
        """Correct the effects of a wrong clock on the pairs of some workspaces.

        Returns for each workspace how many pairs had expired by mistake, if any. Call it once the time is confirmed.
        """
        return await self._database.write(braze_time.correct_times, workspaces)

    async def correct_first_seen(self, workspaces: Sequence[str]) -> None:
        """Change a ``first_seen_at`` in the future to the present time, for open pairs without a send time.

        Call it once the time is confirmed.
        """
        await self._database.write(braze_time.correct_first_seen, workspaces)

    async def find_time_probe(self, workspaces: Sequence[str]) -> Pair | None:
        """Find the pair to request only to confirm the time; None if the next step does not depend on the time."""
        return await self._database.read(braze_time.find_time_probe, workspaces)

    async def mark_served(self, workspaces: Sequence[str], *, seconds: float) -> None:
        """Let these workspaces count as served for the next ``seconds``."""
        await self._database.write(serving.mark_served, workspaces, seconds=seconds)

    async def list_unserved(self, workspaces: Sequence[str]) -> list[str]:
        """List those of these workspaces that do not count as served, so that any process may serve them."""
        return await self._database.read(serving.list_unserved, workspaces)

    async def ping(self) -> None:
        """Return once a small query has run, queued behind writes."""
        await self._database.read(lambda tx: tx.execute(select(literal(1))))


def _schedule_due(tx: Transaction, workspaces: Sequence[str], *, trust_clock: bool) -> int:
    if not tx.confirmed and not trust_clock:
        return 0
    scheduled = tx.execute(make_due(tx.dialect), encode_values(workspaces)).rowcount
    for plan, names in group_by_plan(tx, workspaces).items():
        if plan.readings:
            final_since = plan.expires_at(tx.now - plan.readings[-1][1])
            tx.execute(_raise_priority(tx.dialect), encode_values(names) | {"final_since": final_since})
    return scheduled


@cache
def _raise_priority(dialect: Dialect) -> Update:
    """Give final readings full priority."""
    due = and_(is_named(dialect), pairs.c.state == "due", pairs.c.low_priority == 1)
    final_since: BindParameter[float] = bindparam("final_since", type_=Float)
    late = and_(due, pairs.c.expires_at <= final_since)
    return update(pairs).where(locked(dialect, late, skip=True)).values(low_priority=0)


def _expire_page(tx: Transaction, workspaces: Sequence[str], *, trust_clock: bool) -> int:
    if not tx.confirmed and not trust_clock:
        return 0
    find, record, settle = _expire_statements(tx.dialect)
    expired = list(tx.execute(find, encode_values(workspaces)).scalars())
    if expired:
        tx.execute(record, encode_values(expired))
        tx.execute(settle, encode_values(expired))
    return len(expired)


@cache
def _expire_statements(dialect: Dialect) -> tuple[Select[int], Insert, Update]:
    """Return the statements that find a page of expired pairs, record their outcome, and settle them."""
    due = and_(is_named(dialect), UNSETTLED, pairs.c.state == "due")
    over = select(pairs.c.id).where(due, pairs.c.expires_at <= NOW, TRIED).limit(PAGE)
    named = values_as_table(dialect, pairs.c.id)
    these = pairs.c.id.in_(select(named.c.id))
    columns = ("pair_id", "reading", "outcome", "ended_at")
    ending = select(pairs.c.id, pairs.c.reading, literal("expired"), NOW).where(these)
    settle = update(pairs).where(these).values(state="settled", outcome="expired")
    return over.with_for_update(skip_locked=True, key_share=True), insert(outcomes).from_select(columns, ending), settle


def _halt(tx: Transaction, workspace: str, *, reason: str) -> None:
    lock_ledger(tx)
    update_reason = update(workspaces).where(workspaces.c.name == workspace).values(halt_reason=reason)
    if tx.execute(update_reason).rowcount == 0:
        tx.execute(insert(workspaces).values(name=workspace, halted_at=tx.now, halt_reason=reason))


def _resume(tx: Transaction, workspace: str) -> None:
    tx.execute(delete(workspaces).where(workspaces.c.name == workspace))


def _save_paces(tx: Transaction, requests_per_second: Mapping[str, float]) -> None:
    lock_ledger(tx)
    rows: list[dict[str, Any]] = [
        {"workspace": workspace, "requests_per_second": pace} for workspace, pace in requests_per_second.items()
    ]
    tx.execute(delete(paces).where(paces.c.workspace == bindparam("of")), [{"of": each["workspace"]} for each in rows])
    tx.execute(insert(paces), rows)
