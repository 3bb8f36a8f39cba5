"""Claims due readings of many workspaces: leases them, nearest deadline first, low-priority readings last."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CursorResult,
    Executable,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
    update,
)

from harvester.clock import LARGE_DIFFERENCE_SECONDS
from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.due import make_due
from harvester.ledger.filters import DUE, IN_TIME, LEASED, NOW, PRIORITY, SINCE, WAITING
from harvester.ledger.json_rows import decode_rows, encode_values, select_as_json, select_lists, values_as_table
from harvester.ledger.plans import get_plans
from harvester.ledger.schema import outcomes, pairs
from harvester.model import DAY_SECONDS, GRACE_SECONDS, Pair, Probe, Reading
from harvester.schedule import ONCE, ReadingPlan

_TO_EPOCH: BindParameter[int] = bindparam("to_epoch", type_=Integer)

_OUTCOMES_SEEN = 1000
"""How many of the latest outcomes are searched for campaigns that were captured before."""

Found = list[tuple[str, int]]
"""Pairs that a claim leases, each with its workspace and its id, in the order of their priority in a workspace."""


def claim(tx: Transaction, limits: Mapping[str, int], probes: Mapping[str, Probe], *, epoch: int) -> list[Reading]:
    """Lease due readings of several workspaces to an epoch, each workspace's most urgent first.

    Of a workspace in ``probes`` only the one reading is leased that the probe describes. While the time is not
    confirmed, nothing is stored that depends on it: neither what fell due, nor what is requested.
    """
    workspaces = sorted({*limits, *probes})
    wanted = {name: most for name, most in limits.items() if most > 0 and name not in probes}
    if tx.confirmed:
        tx.execute(make_due(tx.dialect), encode_values(workspaces))
    found = _find_due(tx, wanted)
    if not tx.confirmed:
        served = {name for name, _ in found}
        found += _find_waiting(tx, {name: most for name, most in wanted.items() if name not in served})
    for name, probe in probes.items():
        pair_id = _find_probe(tx, name, probe)
        found += [] if pair_id is None else [(name, pair_id)]
    leased: dict[int, Reading] = {}
    for plan, ids in _group_by_plan(get_plans(tx, workspaces), found).items():
        leased |= _lease(tx, plan, ids, epoch)
    return [leased[pair_id] for _, pair_id in found if pair_id in leased]


def _find_due(tx: Transaction, limits: Mapping[str, int]) -> Found:
    """Find the most urgent due pairs of each workspace, with a statement for each magnitude of the limits.

    A statement reads at most twice as many entries of the index as a workspace may have. Ranking all due pairs would
    read a whole backlog for each claim.
    """
    sizes: dict[int, list[str]] = {}
    for name, most in limits.items():
        sizes.setdefault(most.bit_length(), []).append(name)
    found: Found = []
    for bits, names in sizes.items():
        for name, ids in decode_rows(tx.execute(_select_due(tx.dialect), encode_values(names) | {"most": 2**bits})):
            found += [(name, pair_id) for pair_id in ids[: limits[name]]]
    return found


@cache
def _select_due(dialect: Dialect) -> Select[str]:
    """Select the ``most`` most urgent due pairs of each workspace."""
    named = values_as_table(dialect, pairs.c.workspace)
    due = and_(pairs.c.workspace == named.c.workspace, DUE, IN_TIME)
    most: BindParameter[int] = bindparam("most", type_=Integer)
    first = select(pairs.c.id).where(due).order_by(*PRIORITY).limit(most).correlate(named)
    unlocked = first.with_for_update(skip_locked=True, key_share=True).subquery()
    return select_lists(dialect, named.c.workspace, unlocked.c.id)


def _find_waiting(tx: Transaction, limits: Mapping[str, int]) -> Found:
    """Find the most urgent pairs of each workspace that have fallen due by a time that is not confirmed."""
    if not limits:
        return []
    values = encode_values(limits) | {"most": max(limits.values())}
    rows = decode_rows(tx.execute(_select_waiting(tx.dialect), values))
    return [(name, pair_id) for at, name, pair_id in sorted(rows) if at <= limits[name]]


@cache
def _select_waiting(dialect: Dialect) -> Select[str]:
    """Select rank, workspace and id of the ``most`` most urgent pairs of each workspace that have fallen due."""
    named = values_as_table(dialect, pairs.c.workspace)
    rank = func.row_number().over(partition_by=pairs.c.workspace, order_by=PRIORITY).label("rank")
    late = and_(WAITING, pairs.c.due_at <= NOW, IN_TIME)
    mine = named.c.workspace == pairs.c.workspace
    ranked = select(pairs.c.workspace, pairs.c.id, rank).join(named, mine).where(late).subquery()
    most: BindParameter[int] = bindparam("most", type_=Integer)
    return select_as_json(dialect, (ranked.c.rank, ranked.c.workspace, ranked.c.id), ranked.c.rank <= most)


def _find_probe(tx: Transaction, workspace: str, probe: Probe) -> int | None:
    """Find the due pair that a probe describes; None without one.

    The order is that of ordinary claims, or the reverse. In the reverse order, pairs that were captured and wait for a
    later reading come first.
    """
    other = pairs.c.campaign_id.not_in(probe.refused)
    due = (
        select(pairs.c.id)
        .where(pairs.c.workspace == workspace, DUE, IN_TIME, other)
        .order_by(*(PRIORITY if probe.nearest else (each.desc() for each in PRIORITY)))
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )
    latest = select(outcomes.c.pair_id, outcomes.c.outcome).order_by(outcomes.c.id.desc()).limit(_OUTCOMES_SEEN)
    seen = latest.subquery()
    captured = (
        select(pairs.c.campaign_id)
        .join(seen, seen.c.pair_id == pairs.c.id)
        .where(pairs.c.workspace == workspace, seen.c.outcome == "captured", other)
        .distinct()
    )
    known = set(tx.execute(captured).scalars())
    found: int | None = None
    if known:
        found = tx.execute(due.where(pairs.c.campaign_id.in_(known))).scalar_one_or_none()
    return tx.execute(due).scalar_one_or_none() if found is None else found


def _group_by_plan(plans: Mapping[str, ReadingPlan], found: Found) -> dict[ReadingPlan, list[int]]:
    """Return the ids of the pairs that follow each plan."""
    groups: dict[ReadingPlan, list[int]] = {}
    for workspace, pair_id in found:
        groups.setdefault(plans[workspace], []).append(pair_id)
    return groups


def _lease(tx: Transaction, plan: ReadingPlan, ids: Sequence[int], epoch: int) -> dict[int, Reading]:
    """Lease pairs that follow one plan; returns the reading of each."""
    *others, last = _lease_statements(tx.dialect, plan, confirmed=tx.confirmed)
    values = encode_values(ids) | {"to_epoch": epoch}
    for statement in others:
        tx.execute(statement, values)
    return {each.pair_id: each for each in _build_readings(tx.execute(last, values), epoch)}


@lru_cache
def _lease_statements(dialect: Dialect, plan: ReadingPlan, *, confirmed: bool) -> tuple[Executable, ...]:
    """Return the statements that lease the pairs of one plan; the last one selects their readings."""
    named = values_as_table(dialect, pairs.c.id)
    these = pairs.c.id.in_(select(named.c.id))
    free = or_(DUE, WAITING)  # another transaction may have leased a pair since it was found
    name, ending_at = _latest_due(plan), _find_ending_at(plan)
    leasing: dict[Any, Any] = {pairs.c.state: "leased", pairs.c.epoch: _TO_EPOCH}
    if confirmed:
        leasing |= {pairs.c.reading: name, pairs.c.ending_at: ending_at}
        name, ending_at = pairs.c.reading, pairs.c.ending_at
    mark, columns = update(pairs).where(these, free).values(leasing), _list_columns(name, ending_at)
    if dialect.single_writer:  # SQLite cannot aggregate what an update returns
        return mark, select_as_json(dialect, columns, and_(these, LEASED, pairs.c.epoch == _TO_EPOCH))
    labelled = [each.label(f"c{at}") for at, each in enumerate(columns)]
    return (select_as_json(dialect, list(mark.returning(*labelled).cte().c), true()),)


def _list_columns(name: ColumnElement[Any], ending_at: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    """Return the columns of a reading, in the order in which ``_build_readings`` expects them."""
    p = pairs.c
    return p.id, p.workspace, p.campaign_id, p.send_id, name, ending_at, p.expires_at, SINCE, p.round, p.due_at


def _build_readings(selected: CursorResult[str], epoch: int) -> Iterable[Reading]:
    """Return leased pairs as readings, in no order."""
    for pair_id, workspace, campaign_id, send_id, name, *times, round_, due_at in decode_rows(selected):
        pair, (ending_at, expires_at, since) = Pair(workspace, campaign_id, send_id), map(float, times)
        deadline = expires_at - GRACE_SECONDS
        yield Reading(pair_id, pair, name, ending_at, deadline, since, round_, epoch, float(due_at))


def _latest_due(plan: ReadingPlan) -> ColumnElement[str]:
    """Return the latest due reading of a plan: one reading replaces all that are overdue.

    It is never earlier than the planned one, because a clock that was set back would repeat a captured reading.
    """
    passed = [
        (or_(pairs.c.reading == name, SINCE + age <= NOW), literal(name)) for name, age in reversed(plan.readings)
    ]
    return case((pairs.c.reading == ONCE, pairs.c.reading), *passed, else_=pairs.c.reading)


def _find_ending_at(plan: ReadingPlan) -> ColumnElement[float]:
    """Return the end of the days to request.

    For a day, a deferred reading requests the same days again; after that, it requests the newest days.
    """
    recent = and_(pairs.c.ending_at > NOW - DAY_SECONDS, pairs.c.ending_at <= NOW + LARGE_DIFFERENCE_SECONDS)
    return case((and_(pairs.c.reading == _latest_due(plan), recent), pairs.c.ending_at), else_=NOW)
