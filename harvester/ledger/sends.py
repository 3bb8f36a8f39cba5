"""Finds the history of a send. Every function only reads, and takes milliseconds with ten million pairs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, func, literal_column, select, tuple_

from harvester.ledger.database import Transaction
from harvester.ledger.datasets import list_places
from harvester.ledger.filters import DUE, LEASE_NOW, OVERDUE, PRIORITY
from harvester.ledger.schema import NEVER, outcomes, owners, pair_counts, pairs, parts, plans, workspaces
from harvester.model import DATASET, GRACE_SECONDS, Pair

MAX_READINGS = 20
"""How many readings of a pair are returned, the latest ones."""

MAX_AHEAD = 10_000
"""Up to how many more urgent readings are counted."""

_PAIR_OF_CAMPAIGN = (
    select(pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id)
    .where(pairs.c.workspace.in_(select(pair_counts.c.workspace)), pairs.c.campaign_id == bindparam("campaign"))
    .limit(1)
)
"""It names the workspaces, because the index of pairs begins with them."""


@dataclass(frozen=True, slots=True)
class PastReading:
    """A reading that ended.

    ``part`` is the file of its rows in ``place``, ``stored_at`` is None until that file is stored.
    """

    name: str
    outcome: str
    verdict: str | None
    reason: str | None
    detail: str
    ended_at: float
    part: str | None
    stored_at: float | None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class NextReading:
    """The reading that a pending pair waits for, and how many attempts of it failed.

    ``ahead`` counts the more urgent due readings of the workspace, up to ``MAX_AHEAD``; 0 if this one is not due.
    """

    name: str
    due_at: float
    failures: int
    leased: bool = False
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class SendHistory:
    """What the ledger contains about one pair. Times are seconds since 1970, by Braze's clock.

    ``state`` is pending, captured, rejected or expired; ``next`` is set while it is pending. ``deadline`` is None for a
    pair that does not expire. ``round`` counts how often the pair was sent, from 1. ``has_plan`` is whether a service
    has stored a plan for the workspace. The readings are in order; those of earlier rounds are included.
    """

    pair: Pair
    state: str
    sent_at: float | None
    first_seen_at: float
    deadline: float | None
    round: int
    readings: tuple[PastReading, ...]
    next: NextReading | None
    halt_reason: str | None
    has_plan: bool


@dataclass(frozen=True, slots=True)
class SendSearch:
    """The pairs that a search found at a time; there are ``more`` than these.

    ``in_use`` is whether a process uses the ledger, ``served`` whether a service has ever used it. If no send has the
    searched id, but a campaign has it, ``example`` is a pair of that campaign.
    """

    at: float
    sends: tuple[SendHistory, ...]
    more: bool
    in_use: bool
    served: bool
    example: Pair | None = None


def find_sends(
    tx: Transaction, send_id: str, *, campaign_id: str | None, workspaces: Collection[str], limit: int
) -> SendSearch:
    """Find the pairs with a send id, in the order of workspace and campaign; without ``workspaces`` in all of them."""
    values = {"send": send_id, "campaign": campaign_id, "workspaces": list(workspaces)}
    statement = _select_pairs(by_campaign=campaign_id is not None, by_workspace=bool(workspaces))
    rows = tx.execute(statement.limit(limit + 1), values).all()
    places = list_places(tx)
    return SendSearch(
        at=tx.now,
        sends=tuple(_build_history(tx, row, places) for row in rows[:limit]),
        more=len(rows) > limit,
        in_use=tx.execute(select(owners.c.epoch).where(owners.c.alive_until > LEASE_NOW).limit(1)).first() is not None,
        served=tx.execute(select(plans.c.workspace).limit(1)).first() is not None,
        example=None if rows or campaign_id is not None else _find_pair_of_campaign(tx, send_id),
    )


def _find_pair_of_campaign(tx: Transaction, campaign_id: str) -> Pair | None:
    row = tx.execute(_PAIR_OF_CAMPAIGN, {"campaign": campaign_id}).first()
    return None if row is None else Pair(*row)


@cache
def _select_pairs(*, by_campaign: bool, by_workspace: bool) -> Select[Any]:
    which = [pairs.c.send_id == bindparam("send")]
    if by_campaign:
        which.append(pairs.c.campaign_id == bindparam("campaign"))
    if by_workspace:
        which.append(pairs.c.workspace.in_(bindparam("workspaces", expanding=True)))
    return (
        select(pairs, OVERDUE.label("overdue"), workspaces.c.halt_reason, plans.c.ages_days)
        .outerjoin(workspaces, workspaces.c.name == pairs.c.workspace)
        .outerjoin(plans, plans.c.workspace == pairs.c.workspace)
        .where(*which)
        .order_by(pairs.c.workspace, pairs.c.campaign_id)
    )


def _build_history(tx: Transaction, row: Row[Any], places: Mapping[str, str]) -> SendHistory:
    state = row.outcome if row.state == "settled" else "expired" if row.overdue else "pending"
    return SendHistory(
        pair=Pair(row.workspace, row.campaign_id, row.send_id),
        state=state,
        sent_at=row.sent_at,
        first_seen_at=row.first_seen_at,
        deadline=None if row.expires_at >= NEVER else row.expires_at - GRACE_SECONDS,
        round=row.round + 1,
        readings=_list_readings(tx, row.id, places),
        next=_build_next(tx, row) if state == "pending" else None,
        halt_reason=row.halt_reason,
        has_plan=row.ages_days is not None,
    )


def _list_readings(tx: Transaction, pair_id: int, places: Mapping[str, str]) -> tuple[PastReading, ...]:
    o = outcomes.c
    part = and_(parts.c.batch_id == o.batch_id, parts.c.dataset == DATASET, o.outcome == "captured")
    latest = (
        select(
            o.reading,
            o.outcome,
            o.verdict,
            o.reason,
            o.detail,
            o.ended_at,
            parts.c.name,
            parts.c.stored_at,
            parts.c.destination,
        )
        .outerjoin(parts, part)
        .where(o.pair_id == pair_id)
        .order_by(o.id.desc())
        .limit(MAX_READINGS)
    )
    return tuple(
        PastReading(reading, outcome, verdict, reason, detail or "", ended_at, name, stored_at, places.get(destination))
        for reading, outcome, verdict, reason, detail, ended_at, name, stored_at, destination in reversed(
            tx.execute(latest).all()
        )
    )


def _build_next(tx: Transaction, row: Row[Any]) -> NextReading:
    due = row.state == "due" or (row.state == "waiting" and row.due_at <= tx.now)
    return NextReading(
        name=row.reading,
        due_at=tx.now if due and row.due_at > tx.now else row.due_at,
        failures=row.deferrals,
        leased=row.state == "leased",
        ahead=_count_ahead(tx, row) if due else 0,
    )


def _count_ahead(tx: Transaction, row: Row[Any]) -> int:
    """Count the due readings of a workspace that are claimed before this one."""
    place = tuple_(bindparam("low_priority"), bindparam("expires_at"), bindparam("id"))
    first = (
        select(literal_column("1"))
        .select_from(pairs)
        .where(pairs.c.workspace == row.workspace, DUE, tuple_(*PRIORITY) < place)
        .limit(MAX_AHEAD)
        .subquery()
    )
    values = {"low_priority": row.low_priority, "expires_at": row.expires_at, "id": row.id}
    return int(tx.execute(select(func.count()).select_from(first), values).scalar_one())
