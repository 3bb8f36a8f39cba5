"""Stores which dataset is at which place, so that a capture can start while a known place is unavailable."""

from sqlalchemy import ColumnElement, delete, insert, literal_column, select

from harvester.ledger.database import Transaction
from harvester.ledger.schema import datasets

_ROW_ORDER: ColumnElement[int] = literal_column("rowid")
"""SQLite's own number of a row: each ``save_dataset`` inserts the last one."""


def save_dataset(tx: Transaction, place: str, dataset_id: str) -> None:
    """Store the id of the dataset at a place."""
    tx.execute(delete(datasets).where(datasets.c.place == place))
    tx.execute(insert(datasets).values(place=place, dataset_id=dataset_id))


def list_places(tx: Transaction) -> dict[str, str]:
    """Return the place where each dataset was found last."""
    return {row.dataset_id: row.place for row in tx.execute(select(datasets).order_by(_ROW_ORDER))}


def find_dataset(tx: Transaction, place: str) -> str | None:
    """Return the id of the dataset of a place.

    None for a place that was never reached, and for one whose dataset was found at another place since: it was moved.
    """
    return next((dataset_id for dataset_id, last in list_places(tx).items() if last == place), None)
