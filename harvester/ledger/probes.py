"""Finds the pair to request next while refusals put a workspace's endpoint in doubt. It only reads."""

from sqlalchemy import select

from harvester.ledger.database import Transaction
from harvester.ledger.filters import DUE, IN_TIME, PRIORITY
from harvester.ledger.schema import outcomes, pairs
from harvester.model import Probe

OUTCOMES_SEEN = 1000
"""How many of the latest outcomes are searched for campaigns that were captured before."""


def find_probe(tx: Transaction, workspace: str, probe: Probe) -> int | None:
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
    latest = select(outcomes.c.pair_id, outcomes.c.outcome).order_by(outcomes.c.id.desc()).limit(OUTCOMES_SEEN)
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
