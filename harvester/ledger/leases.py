"""Who holds which batch, and what is taken back from owners that died or lost their lease.

Each verb is a function over one open transaction; time and identity are arguments.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, func, literal_column, select, update

from harvester.ledger.plans import resting
from harvester.ledger.schema import batches, pairs, parts
from harvester.schedule import ONCE


@dataclass(frozen=True, slots=True)
class Unstored:
    """A sealed batch that is not known to be stored, the dataset it was sealed for, and its size there."""

    batch_id: str
    destination: str
    size_bytes: int


def renew(connection: Connection, batch_ids: Sequence[str], *, owner: str, lease_until: float) -> set[str]:
    """Lengthen the lease of open and sealed batches; gives those that are still ours."""
    mine = and_(batches.c.id.in_(batch_ids), batches.c.owner == owner, batches.c.state.in_(("open", "sealed")))
    kept = connection.execute(update(batches).where(mine).values(lease_until=lease_until).returning(batches.c.id))
    return set(kept.scalars())


def held_by_others(connection: Connection, workspace: str, *, owner: str) -> bool:
    """Tell whether another owner has readings of a workspace in hand that are asked for once."""
    theirs = and_(batches.c.state == "open", batches.c.workspace == workspace, batches.c.owner != owner)
    once = and_(pairs.c.state == literal_column("'leased'"), pairs.c.reading == ONCE)
    held = select(pairs.c.id).join(batches, batches.c.id == pairs.c.batch_id).where(theirs, once)
    return connection.execute(held.limit(1)).first() is not None


def unfinished_owners(connection: Connection) -> set[str]:
    """Name everyone who holds a batch that is not stored."""
    held = select(batches.c.owner).where(batches.c.state.in_(("open", "sealed")))
    return set(connection.execute(held).scalars())


def recover(
    connection: Connection, *, dead_owners: Iterable[str], owner: str, now: float, lease_until: float
) -> list[Unstored]:
    """Give back the readings of open batches whose owner is dead or whose lease has run out.

    Sealed batches of such owners become ours, until ``lease_until``; they are returned, oldest first, to be created.
    """
    lapsed = and_(batches.c.owner != owner, batches.c.owner.in_(list(dead_owners)) | (batches.c.lease_until < now))
    lost = select(batches.c.id).where(batches.c.state == "open", lapsed)
    connection.execute(
        update(pairs)
        .where(pairs.c.state == "leased", pairs.c.batch_id.in_(lost.scalar_subquery()))
        .values(state=resting(pairs.c.due_at, now), batch_id=None)
    )
    connection.execute(delete(batches).where(batches.c.state == "open", lapsed))
    ours = {"owner": owner, "lease_until": lease_until}
    connection.execute(update(batches).where(batches.c.state == "sealed", lapsed).values(ours))
    unstored = (
        select(parts.c.batch_id, parts.c.destination, func.sum(parts.c.size_bytes))
        .join(batches, batches.c.id == parts.c.batch_id)
        .where(batches.c.state == "sealed", batches.c.owner == owner)
        .group_by(parts.c.batch_id, parts.c.destination)
        .order_by(parts.c.batch_id)
    )
    return [Unstored(*row) for row in connection.execute(unstored)]
