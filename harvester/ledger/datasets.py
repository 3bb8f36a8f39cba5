"""Stores which dataset is at which place, so that a capture can start while a known place is unavailable."""

from sqlalchemy import delete, insert, or_, select

from harvester.ledger.database import Transaction
from harvester.ledger.locks import lock_ledger
from harvester.ledger.schema import datasets


def save_dataset(tx: Transaction, place: str, dataset_id: str) -> None:
    """Store the id of the dataset at a place. A dataset is only at the place where it was found last."""
    lock_ledger(tx)
    tx.execute(delete(datasets).where(or_(datasets.c.place == place, datasets.c.dataset_id == dataset_id)))
    tx.execute(insert(datasets).values(place=place, dataset_id=dataset_id))


def list_places(tx: Transaction) -> dict[str, str]:
    """Return the place where each dataset was found last."""
    return {row.dataset_id: row.place for row in tx.execute(select(datasets))}


def find_dataset(tx: Transaction, place: str) -> str | None:
    """Return the id of the dataset of a place.

    None for a place that was never reached, and for one whose dataset was found at another place since: it was moved.
    """
    return next((dataset_id for dataset_id, last in list_places(tx).items() if last == place), None)
