"""The outlook of open pairs, for pages that are read often.

Every function only reads. Each is fast on a ledger of a million pairs: it reads an index of open pairs, and never
settled ones. States are literals in the statements, because a database uses a partial index only if it can see its
condition.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import ColumnElement, ScalarSelect, func, literal_column, select

from harvester.ledger.database import Transaction
from harvester.ledger.filters import DEFERRED, EXPIRED, UNSETTLED
from harvester.ledger.schema import NEVER, batches, outcomes, paces, pairs, parts
from harvester.model import DAY_SECONDS, GRACE_SECONDS, Pair
from harvester.schedule import MARGIN_SECONDS

_STATES = ("waiting", "due", "leased")

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

    ``deferred`` readings failed and wait to be tried again; ``waiting`` ones wait for the time that is planned.
    """

    readings: dict[str, int]
    at_risk: int
    nearest_deadline: float | None
    days: tuple[DayOfDeadlines, ...]


def get_outlook(tx: Transaction, workspace: str, *, days: int = 15) -> Outlook:
    """Return the outlook of a workspace's open pairs.

    A pair is at risk once its planning deadline has passed, or if the pace that a service measured last is too slow to
    read all pairs of its day and the days before in time. If no service has measured a pace, only the planning
    deadline counts. Status, page and metric all use this number.

    Pairs that were forced have no deadline. Every count scans one range of an index, which costs a tenth of grouping.
    """
    now, today = tx.now, tx.now // DAY_SECONDS
    midnights = [(today + ahead) * DAY_SECONDS for ahead in range(days + 1)]
    soonest = select(func.min(pairs.c.expires_at)).where(pairs.c.workspace == workspace, UNSETTLED)
    nearest = tx.execute(soonest).scalar_one()
    bounds = [-math.inf, *midnights[1:]]
    stretches = (
        _count(workspace, UNSETTLED, pairs.c.expires_at >= begin, pairs.c.expires_at < end)
        for begin, end in pairwise(midnight + GRACE_SECONDS for midnight in bounds)
    )
    counts = tx.execute(select(*stretches)).one()
    late = now + MARGIN_SECONDS
    beyond = _out_of_reach(midnights, counts, find_pace(tx, workspace), now)
    at_risk = tx.execute(
        select(_count(workspace, UNSETTLED, pairs.c.expires_at < max(late, beyond) + GRACE_SECONDS))
    ).scalar_one()
    found, left = [], at_risk
    for midnight, count in zip(midnights, counts, strict=False):
        found.append(DayOfDeadlines(midnight, count, min(left, count)))  # those at risk are the nearest ones
        left -= found[-1].at_risk
    return Outlook(
        readings=_readings(tx, workspace),
        at_risk=at_risk,
        nearest_deadline=None if nearest is None or nearest >= NEVER else nearest - GRACE_SECONDS,
        days=tuple(found),
    )


def _readings(tx: Transaction, workspace: str) -> dict[str, int]:
    in_state = (func.count().filter(pairs.c.state == state) for state in _STATES)
    by_state = tx.execute(select(*in_state).where(pairs.c.workspace == workspace, UNSETTLED)).one()
    states = dict(zip(_STATES, by_state, strict=True))
    states["deferred"] = tx.execute(select(_count(workspace, DEFERRED))).scalar_one()
    states["waiting"] -= states["deferred"]
    return {state: count for state, count in states.items() if count}


def _out_of_reach(midnights: Sequence[float], counts: Sequence[int], pace: float, now: float) -> float:
    """Return the end of the last day whose pairs cannot all be read in time at that pace; 0 if all can."""
    beyond, due = 0.0, 0
    for midnight, count in zip(midnights, counts, strict=False):
        due += count
        if count and due > pace * (midnight + DAY_SECONDS - now):
            beyond = midnight + DAY_SECONDS
    return beyond


def count_at_risk(tx: Transaction) -> dict[str, int]:
    """Count the open pairs at risk of each workspace that has open pairs."""
    names = tx.execute(select(pairs.c.workspace).where(UNSETTLED).distinct()).scalars().all()
    return {name: get_outlook(tx, name).at_risk for name in sorted(names)}


def find_pace(tx: Transaction, workspace: str) -> float:
    """Return the requests per second that a workspace sustains, as stored last; infinite if unknown."""
    kept = select(paces.c.requests_per_second).where(paces.c.workspace == workspace)
    found: float | None = tx.execute(kept).scalar_one_or_none()
    return math.inf if found is None else found


def _count(workspace: str, *which: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.count()).select_from(pairs).where(pairs.c.workspace == workspace, *which).scalar_subquery()


def count_expired(tx: Transaction) -> dict[str, int]:
    """Count the pairs of each workspace that have expired."""
    rows = tx.execute(select(pairs.c.workspace, func.count()).where(EXPIRED).group_by(pairs.c.workspace))
    return {row[0]: row[1] for row in rows}


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
