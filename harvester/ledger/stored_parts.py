"""Reads which parts are stored, and which of them were deleted from the list. No function writes."""

from dataclasses import dataclass

from sqlalchemy import func, select

from harvester.ledger.database import Transaction
from harvester.ledger.datasets import list_places
from harvester.ledger.schema import parts, pruned_parts


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A stored part. ``order`` only grows in the whole ledger, so loaders use it as a bookmark, also for one place."""

    order: int
    dataset: str
    name: str
    sha256: str
    size_bytes: int
    row_count: int
    stored_at: float
    place: str | None = None


@dataclass(frozen=True, slots=True)
class PrunedParts:
    """Stored parts that were deleted from the ledger: their number and places, and the order and time of the newest."""

    count: int
    order: int
    stored_at: float
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartsPage:
    """Stored parts after a bookmark, and the parts after it that were pruned; None if there are none.

    Both are from one transaction, so a reader of several pages notices when parts are pruned in between.
    """

    parts: list[StoredPart]
    pruned: PrunedParts | None
    newest_order: int
    """The order of the part that was stored last in any place, 0 if there is none."""


def list_parts(tx: Transaction, *, after: int, limit: int, dataset_id: str | None = None) -> PartsPage:
    """List stored parts in the order of storing, after a bookmark; of all datasets, or of one."""
    newest = tx.execute(select(func.coalesce(func.max(parts.c.stored_order), 0))).scalar_one()
    after = min(max(after, 0), newest)  # SQLite refuses larger integers
    following = select(parts).where(parts.c.stored_order > after).order_by(parts.c.stored_order).limit(limit)
    if dataset_id is not None:
        following = following.where(parts.c.destination == dataset_id)
    places = list_places(tx)
    found = [
        StoredPart(
            order=row.stored_order,
            dataset=row.dataset,
            name=row.name,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            row_count=row.row_count,
            stored_at=row.stored_at,
            place=places.get(row.destination),
        )
        for row in tx.execute(following)
    ]
    return PartsPage(found, find_pruned(tx, after=after, dataset_id=dataset_id), newest)


def find_pruned(tx: Transaction, *, after: int = 0, dataset_id: str | None = None) -> PrunedParts | None:
    """Return the pruned parts of the datasets whose newest pruned part is after a bookmark; None if there are none."""
    which = select(pruned_parts).where(pruned_parts.c.stored_order > after).order_by(pruned_parts.c.stored_order)
    if dataset_id is not None:
        which = which.where(pruned_parts.c.destination == dataset_id)
    rows = tx.execute(which).all()
    if not rows:
        return None
    places = list_places(tx)
    return PrunedParts(
        count=sum(row.parts for row in rows),
        order=rows[-1].stored_order,
        stored_at=rows[-1].stored_at,
        places=tuple(sorted({places.get(row.destination, "an unknown place") for row in rows})),
    )


def list_newest_parts(tx: Transaction, dataset_id: str, *, limit: int) -> list[str]:
    """Return the names of the parts that were stored last in one place's dataset, the newest first."""
    here = select(parts.c.name).where(parts.c.destination == dataset_id, parts.c.stored_order.is_not(None))
    return list(tx.execute(here.order_by(parts.c.stored_order.desc()).limit(limit)).scalars())


def count_stored_parts(tx: Transaction, dataset_id: str) -> int:
    """Count the parts that were stored in the place of a dataset, including those that were pruned."""
    here = select(func.count()).where(parts.c.destination == dataset_id, parts.c.stored_order.is_not(None))
    pruned = find_pruned(tx, dataset_id=dataset_id)
    return tx.execute(here).scalar_one() + (0 if pruned is None else pruned.count)
