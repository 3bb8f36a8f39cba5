"""Rebuilds a ledger's plan from the pairs in a dataset's parts."""

from collections.abc import Iterable, Mapping

from sqlalchemy import insert, select, update

from harvester.ledger.database import Transaction
from harvester.ledger.datasets import save_dataset
from harvester.ledger.schema import about, outcomes, pairs
from harvester.model import LastCapture
from harvester.schedule import FINAL, SINGLE_READING_PLAN, ReadingPlan


def rebuild(
    tx: Transaction,
    ledger_id: str,
    captures: Iterable[LastCapture],
    plans: Mapping[str, ReadingPlan],
    *,
    unmarked: Mapping[str, str] | None = None,
) -> int:
    """Set the ledger's id and add the captured pairs; existing pairs stay. Returns the number of new pairs.

    ``unmarked`` has the id that the ledger gives to the dataset without a marker at each place.
    """
    tx.execute(update(about).values(ledger_id=ledger_id))
    for place, dataset_id in (unmarked or {}).items():
        save_dataset(tx, place, dataset_id)
    return sum(_restore(tx, each, plans.get(each.pair.workspace, SINGLE_READING_PLAN)) for each in captures)


def _restore(tx: Transaction, capture: LastCapture, plan: ReadingPlan) -> bool:
    """Add a pair in the state after its last capture. False if it exists."""
    pair = capture.pair
    same = (pairs.c.workspace == pair.workspace, pairs.c.campaign_id == pair.campaign_id)
    if tx.execute(select(pairs.c.id).where(*same, pairs.c.send_id == pair.send_id)).first():
        return False
    following = plan.after(capture.reading, capture.since, capture.captured_at)
    pair_id = tx.execute(
        insert(pairs)
        .returning(pairs.c.id)
        .values(
            workspace=pair.workspace,
            campaign_id=pair.campaign_id,
            send_id=pair.send_id,
            sent_at=capture.since,
            first_seen_at=capture.since,
            expires_at=plan.expires_at(capture.since),
            captures=capture.captures,
            reading=following.name if following else capture.reading,
            state="waiting" if following else "settled",
            due_at=following.due_at if following else tx.now,
            verdict=capture.verdict.value,
            outcome=None if following else "captured",
            low_priority=int(following is not None and following.name != FINAL),
        )
    ).scalar_one()
    tx.execute(
        insert(outcomes).values(
            pair_id=pair_id,
            reading=capture.reading,
            outcome="captured",
            verdict=capture.verdict.value,
            ended_at=capture.captured_at,
        )
    )
    return True
