"""Deletes old history in pages, each a short transaction, so that a ledger's size depends on what is open and recent.

A settled pair is deleted with its outcomes ``keep_days`` after it expired. Superseded outcomes, parts and batches are
kept for 15 days more, the lifetime of a pair, so that the parts of a pair can be found as long as the ledger contains
the pair. Open pairs and batches that are not stored are never deleted. Nothing is deleted while the time is not
confirmed, because the clock may be wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, literal_column, select, update

from harvester.ledger.counts import summarize_counts
from harvester.ledger.database import Database, Transaction
from harvester.ledger.intake import delete_pairs
from harvester.ledger.locks import lock_ledger
from harvester.ledger.schema import NEVER, batches, outcomes, pairs, parts, pruned_parts
from harvester.model import DAY_SECONDS, GRACE_SECONDS, RETENTION_SECONDS

PAGE = 500
"""How many rows one transaction deletes; the outcomes of a pair are deleted with it, and not counted."""

PAGES_AT_ONCE = 200
"""The most transactions of one call of ``prune``. The caller renews its lease between two calls."""

_SETTLED = pairs.c.state == literal_column("'settled'")
_STORED = batches.c.state == literal_column("'stored'")


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of each kind were deleted, not counting the outcomes of pairs, and whether no old ones are left."""

    rows: Mapping[str, int]
    complete: bool


async def prune(database: Database, *, keep_days: float) -> Pruned:
    """Delete settled pairs that expired more than ``keep_days`` ago, and other old history. Raises ``LedgerError``.

    Call it again if the result is not ``complete``.
    """
    rows = dict.fromkeys((kind for kind, *_ in _STEPS), 0)
    pages = 0
    await database.write(summarize_counts)
    for kind, delete_page, days in _STEPS:
        while deleted := await database.write(_prune_page, delete_page, keep_days=keep_days + days):
            rows[kind] += deleted
            pages += 1
            if pages == PAGES_AT_ONCE:
                return Pruned(rows, complete=False)
    return Pruned(rows, complete=True)


def _prune_page(tx: Transaction, delete_page: Callable[[Transaction, float], int], *, keep_days: float) -> int:
    """Delete one page of a kind; returns the number of rows, 0 if none is old."""
    return delete_page(tx, tx.now - keep_days * DAY_SECONDS) if tx.confirmed else 0


def _delete_pairs(tx: Transaction, expired_before: float) -> int:
    """Delete settled pairs that have expired."""
    old = select(pairs.c.id).where(_SETTLED, pairs.c.expires_at < expired_before).limit(PAGE)
    return delete_pairs(tx, pairs.c.id.in_(old))


def _delete_forced_pairs(tx: Transaction, ended_before: float) -> int:
    """Delete settled pairs that do not expire, and whose last reading is old."""
    recent = select(outcomes.c.id).where(outcomes.c.pair_id == pairs.c.id, outcomes.c.ended_at >= ended_before)
    old = select(pairs.c.id).where(_SETTLED, pairs.c.expires_at >= NEVER, ~recent.exists()).limit(PAGE)
    return delete_pairs(tx, pairs.c.id.in_(old))


def _delete_outcomes(tx: Transaction, ended_before: float) -> int:
    """Delete old outcomes of pairs that are kept, such as a send that is sent again each week, but not their last."""
    later = outcomes.alias("later")
    superseded = select(later.c.id).where(later.c.pair_id == outcomes.c.pair_id, later.c.id > outcomes.c.id).exists()
    old = select(outcomes.c.id).where(outcomes.c.ended_at < ended_before, superseded).limit(PAGE)
    return tx.execute(delete(outcomes).where(outcomes.c.id.in_(old))).rowcount


def _delete_parts(tx: Transaction, stored_before: float) -> int:
    """Delete the rows of stored parts in the order of storing, and record the last deleted one of each dataset.

    The newest part stays, because the next part gets the order after it.
    """
    lock_ledger(tx)
    newest = select(func.max(parts.c.stored_order)).scalar_subquery()
    oldest = select(parts.c.destination, parts.c.stored_order, parts.c.stored_at).where(parts.c.stored_order < newest)
    old = _find_old(tx.execute(oldest.order_by(parts.c.stored_order).limit(PAGE)).all(), stored_before, tx.now)
    for destination in {each.destination for each in old}:
        _record_pruned(tx, destination, [each for each in old if each.destination == destination])
    if old:
        tx.execute(delete(parts).where(parts.c.stored_order <= old[-1].stored_order))
    return len(old)


def _find_old(rows: Sequence[Row[Any]], stored_before: float, now: float) -> Sequence[Row[Any]]:
    """Return the rows, which are in the order of storing, up to the last old one before the first recent one.

    A part with a time in the future was stored while the clock was wrong. It counts as old if an old part follows it.
    """
    count = 0
    for index, each in enumerate(rows):
        if stored_before <= each.stored_at <= now:
            break
        if each.stored_at < stored_before:
            count = index + 1
    return rows[:count]


def _record_pruned(tx: Transaction, destination: str, old: Sequence[Row[Any]]) -> None:
    newest = {"stored_order": old[-1].stored_order, "stored_at": old[-1].stored_at}
    known = pruned_parts.c.destination == destination
    more = pruned_parts.c.parts + len(old)
    if tx.execute(update(pruned_parts).where(known).values(parts=more, **newest)).rowcount == 0:
        tx.execute(insert(pruned_parts).values(destination=destination, parts=len(old), **newest))


def _delete_batches(tx: Transaction, opened_before: float) -> int:
    """Delete stored batches without rows of parts."""
    with_part = select(parts.c.batch_id).where(parts.c.batch_id == batches.c.id).exists()
    old = select(batches.c.id).where(_STORED, batches.c.opened_at < opened_before, ~with_part).limit(PAGE)
    return tx.execute(delete(batches).where(batches.c.id.in_(old))).rowcount


_PAIR_DAYS = (RETENTION_SECONDS + GRACE_SECONDS) / DAY_SECONDS
"""How long after a send its pair expires."""

_STEPS = (
    ("pairs", _delete_pairs, 0.0),
    ("pairs", _delete_forced_pairs, _PAIR_DAYS),
    ("readings", _delete_outcomes, _PAIR_DAYS),
    ("parts", _delete_parts, _PAIR_DAYS),
    ("batches", _delete_batches, _PAIR_DAYS),
)
"""What each step deletes, the function that deletes a page of it, and how many days longer than a pair it is kept."""
