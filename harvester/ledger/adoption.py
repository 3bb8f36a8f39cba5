"""What is known of pairs from their parts alone becomes part of the plan again.

Each verb is a function over one open transaction; time is an argument.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, insert, select, update

from harvester.ledger.datasets import remember
from harvester.ledger.schema import about, outcomes, pairs
from harvester.model import LastCapture
from harvester.schedule import FINAL, ONLY_ONCE, ReadingPlan


def restore(
    connection: Connection, captures: Iterable[LastCapture], plans: Mapping[str, ReadingPlan], *, now: float,
    unmarked: tuple[str, str] | None = None,
) -> int:  # fmt: skip
    """Add pairs with what was captured of them last; those that the ledger has already stay. Gives how many are new.

    ``unmarked`` is the place of a dataset without a marker, and the id that the ledger gives it.
    """
    if unmarked is not None:
        remember(connection, *unmarked)
    added = 0
    for each in captures:
        pair, plan = each.pair, plans.get(each.pair.workspace, ONLY_ONCE)
        same = (pairs.c.workspace == pair.workspace, pairs.c.campaign_id == pair.campaign_id)
        if connection.execute(select(pairs.c.id).where(*same, pairs.c.send_id == pair.send_id)).first():
            continue
        following = plan.after(each.reading, each.since, each.captured_at)
        pair_id = connection.execute(
            insert(pairs).returning(pairs.c.id).values(
                workspace=pair.workspace, campaign_id=pair.campaign_id, send_id=pair.send_id, sent_at=each.since,
                first_seen_at=each.since, expires_at=plan.expires_at(each.since), captures=each.captures,
                reading=following.name if following else each.reading, state="waiting" if following else "settled",
                due_at=following.due_at if following else now, verdict=each.verdict.value,
                outcome=None if following else "captured",
                yields=int(following is not None and following.name != FINAL),
            )
        ).scalar_one()  # fmt: skip
        connection.execute(
            insert(outcomes).values(
                pair_id=pair_id, reading=each.reading, outcome="captured",
                verdict=each.verdict.value, ended_at=each.captured_at,
            )
        )  # fmt: skip
        added += 1
    return added


def take_identity(connection: Connection, ledger_id: str) -> None:
    """Be the ledger of that id from now on."""
    connection.execute(update(about).values(ledger_id=ledger_id))
