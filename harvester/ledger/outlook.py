"""The outlook of open pairs, for pages that are read often.

Every function only reads. Each is fast on a ledger of ten million pairs: it reads counts, and searches an index of open
pairs. States are literals in the statements, because a database uses a partial index only if it can see its condition.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from sqlalchemy import Float, Select, String, bindparam, func, literal_column, select, true

from harvester.ledger.counts import OPEN
from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import DUE, PRIORITY, UNSETTLED, WAITING
from harvester.ledger.json_rows import decode_rows, encode_values, select_as_json, values_as_table
from harvester.ledger.schema import NEVER, batches, outcomes, paces, pair_counts, pairs, parts
from harvester.model import DAY_SECONDS, GRACE_SECONDS, Pair
from harvester.schedule import MARGIN_SECONDS

RECENT_OUTCOMES = 10_000
"""How many of the latest outcomes are searched for the last capture of each workspace."""


@dataclass(frozen=True, slots=True)
class DayOfDeadlines:
    """The open pairs whose deadline is on one day (UTC, ``at`` its first second), and those of them at risk."""

    at: float
    pairs: int
    at_risk: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A pair that the API refused: the reason (a closed set), the API's text, and the time."""

    pair: Pair
    reason: str
    detail: str
    ended_at: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """A workspace's open readings by state, and its pairs' deadlines; past deadlines count on the first day.

    ``deferred`` readings failed and wait to be tried again; ``waiting`` ones wait for the time that is planned. The
    next reading is due at ``next_due_at``: in the past if one is due now, None if none is planned.
    """

    readings: dict[str, int]
    at_risk: int
    next_due_at: float | None
    nearest_deadline: float | None
    days: tuple[DayOfDeadlines, ...]


_OPEN_COUNTS = (
    select(pair_counts.c.workspace, pair_counts.c.state, pair_counts.c.day, func.sum(pair_counts.c.pairs))
    .where(OPEN)
    .group_by(pair_counts.c.workspace, pair_counts.c.state, pair_counts.c.day)
    .having(func.sum(pair_counts.c.pairs) > 0)
)
_COUNT_DEADLINES = (
    select(func.count())
    .select_from(pairs)
    .where(
        pairs.c.workspace == bindparam("of_workspace", type_=String),
        UNSETTLED,
        pairs.c.expires_at >= bindparam("begins", type_=Float),
        pairs.c.expires_at < bindparam("ends", type_=Float),
    )
)


@dataclass(frozen=True, slots=True)
class _OpenCounts:
    """The number of a workspace's open pairs by state, and by the day of their deadline (days since 1970)."""

    states: Counter[str] = field(default_factory=Counter)
    days: Counter[int] = field(default_factory=Counter)

    def add(self, state: str, day: int, number: int) -> None:
        self.states[state] += number
        self.days[day] += number


def get_outlooks(tx: Transaction, workspaces: Iterable[str] = (), *, days: int = 15) -> dict[str, Outlook]:
    """Return the outlook of these workspaces, and of each other one that has open pairs.

    A pair is at risk once its planning deadline has passed, or if the pace that a service measured last is too slow to
    read all pairs of its day and the days before in time. If no service has measured a pace, only the planning
    deadline counts. Status, page and metric all use this number.

    Pairs that were forced have no deadline.
    """
    counts = {name: _OpenCounts() for name in workspaces}
    for workspace, state, day, number in tx.execute(_OPEN_COUNTS):
        counts.setdefault(workspace, _OpenCounts()).add(state, day, number)
    paces_by_workspace = {row.workspace: row.requests_per_second for row in tx.execute(select(paces))}
    nearest = _find_nearest(tx, counts)
    return {
        name: _build_outlook(tx, name, each, nearest[name], paces_by_workspace.get(name, math.inf), days)
        for name, each in sorted(counts.items())
    }


def _build_outlook(
    tx: Transaction,
    workspace: str,
    counts: _OpenCounts,
    nearest: tuple[float | None, float | None],
    pace: float,
    days: int,
) -> Outlook:
    today = int(tx.now // DAY_SECONDS)
    midnights = [(today + ahead) * DAY_SECONDS for ahead in range(days)]
    overdue_and_today = sum(number for day, number in counts.days.items() if day <= today)
    by_day = [overdue_and_today, *(counts.days[today + ahead] for ahead in range(1, days))]
    beyond = _out_of_reach(midnights, by_day, pace, tx.now)
    at_risk = _count_at_risk(tx, workspace, counts, max(tx.now + MARGIN_SECONDS, beyond))
    found, left = [], at_risk
    for midnight, count in zip(midnights, by_day, strict=True):
        found.append(DayOfDeadlines(midnight, count, min(left, count)))  # those at risk are the nearest ones
        left -= found[-1].at_risk
    deadline, due_at = nearest
    return Outlook(dict(counts.states), at_risk, due_at, deadline, tuple(found))


def _count_at_risk(tx: Transaction, workspace: str, counts: _OpenCounts, before: float) -> int:
    """Count the open pairs whose deadline is before a time: whole days by their counts, the last one by an index."""
    last_day = int(before // DAY_SECONDS)
    earlier = sum(number for day, number in counts.days.items() if day < last_day)
    if before == last_day * DAY_SECONDS or not counts.days[last_day]:
        return earlier
    begin = last_day * DAY_SECONDS + GRACE_SECONDS
    values = {"of_workspace": workspace, "begins": begin, "ends": before + GRACE_SECONDS}
    return earlier + tx.execute(_COUNT_DEADLINES, values).scalar_one()


def _find_nearest(tx: Transaction, workspaces: Iterable[str]) -> dict[str, tuple[float | None, float | None]]:
    """Find the nearest deadline and the next due time of each workspace."""
    rows = decode_rows(tx.execute(_select_nearest(tx.dialect), encode_values(workspaces)))
    return {
        name: (
            float(expires_at) - GRACE_SECONDS if float(expires_at) < NEVER else None,
            float(due_at) if float(due_at) < NEVER else None,
        )
        for name, expires_at, due_at in rows
    }


@cache
def _select_nearest(dialect: Dialect) -> Select[str]:
    named = values_as_table(dialect, pairs.c.workspace)
    mine = pairs.c.workspace == named.c.workspace
    expiry = select(pairs.c.expires_at).where(mine, UNSETTLED).order_by(pairs.c.expires_at).limit(1).correlate(named)
    # One search of an index for each state.
    due, waiting = (
        select(pairs.c.due_at).where(mine, state).order_by(*order).limit(1).correlate(named).scalar_subquery()
        for state, order in ((DUE, PRIORITY), (WAITING, (pairs.c.due_at,)))
    )
    columns = (
        func.coalesce(expiry.scalar_subquery(), NEVER, type_=Float).label("expires_at"),
        func.coalesce(due, waiting, NEVER, type_=Float).label("due_at"),
    )
    each = select(named.c.workspace, *columns).subquery()
    return select_as_json(dialect, (each.c.workspace, each.c.expires_at, each.c.due_at), true())


def _out_of_reach(midnights: Sequence[float], counts: Sequence[int], pace: float, now: float) -> float:
    """Return the end of the last day whose pairs cannot all be read in time at that pace; 0 if all can."""
    beyond, due = 0.0, 0
    for midnight, count in zip(midnights, counts, strict=False):
        due += count
        if count and due > pace * (midnight + DAY_SECONDS - now):
            beyond = midnight + DAY_SECONDS
    return beyond


def get_last_captures(tx: Transaction) -> dict[str, float]:
    """Return the time of each workspace's last capture, among the latest outcomes."""
    latest = select(outcomes.c.pair_id, outcomes.c.outcome, outcomes.c.ended_at)
    recent = latest.order_by(outcomes.c.id.desc()).limit(RECENT_OUTCOMES).subquery()
    rows = tx.execute(
        select(pairs.c.workspace, func.max(recent.c.ended_at))
        .join(recent, recent.c.pair_id == pairs.c.id)
        .where(recent.c.outcome == "captured")
        .group_by(pairs.c.workspace)
    )
    return {row[0]: row[1] for row in rows}


def count_unstored_batches(tx: Transaction) -> dict[str, int]:
    """Count the batches that are not stored yet, by state."""
    waiting = batches.c.state != literal_column("'stored'")
    rows = tx.execute(select(batches.c.state, func.count()).where(waiting).group_by(batches.c.state))
    return {row[0]: row[1] for row in rows}


def get_sealed_bytes(tx: Transaction) -> int:
    """Return the total size of the parts that wait to be stored."""
    waiting = select(batches.c.id).where(batches.c.state != literal_column("'stored'"))
    size = select(func.coalesce(func.sum(parts.c.size_bytes), 0)).where(
        parts.c.batch_id.in_(waiting), parts.c.stored_at.is_(None)
    )
    return int(tx.execute(size).scalar_one())


def list_rejections(tx: Transaction, *, limit: int) -> list[Rejection]:
    """List the pairs that were rejected last and still are, each once, newest first."""
    refused = outcomes.c.outcome == literal_column("'rejected'")
    later = outcomes.alias("later")  # of a pair that was requeued and rejected again
    later_outcome = select(later.c.id).where(later.c.pair_id == pairs.c.id, later.c.id > outcomes.c.id).exists()
    latest = (
        select(
            pairs.c.workspace,
            pairs.c.campaign_id,
            pairs.c.send_id,
            outcomes.c.reason,
            outcomes.c.detail,
            outcomes.c.ended_at,
        )
        .join(outcomes, outcomes.c.pair_id == pairs.c.id)
        .where(refused, pairs.c.outcome == "rejected", ~later_outcome)
        .order_by(outcomes.c.id.desc())
        .limit(limit)
    )
    return [
        Rejection(Pair(workspace, campaign_id, send_id), reason, detail or "", ended_at)
        for workspace, campaign_id, send_id, reason, detail, ended_at in tx.execute(latest)
    ]
