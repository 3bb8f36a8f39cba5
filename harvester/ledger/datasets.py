"""Which dataset lies at which place, so that harvesting can begin while a place that is known is away."""

from sqlalchemy import Connection, delete, insert, select

from harvester.ledger.schema import datasets


def remember(connection: Connection, place: str, dataset_id: str) -> None:
    """Note the dataset that was found at a place."""
    connection.execute(delete(datasets).where(datasets.c.place == place))
    connection.execute(insert(datasets).values(place=place, dataset_id=dataset_id))


def remembered(connection: Connection, place: str) -> str | None:
    """Give the dataset that was last found at a place; None for one that was never reached."""
    found: str | None = connection.execute(
        select(datasets.c.dataset_id).where(datasets.c.place == place)
    ).scalar_one_or_none()
    return found
