"""Leases of readings: who owns them, their renewal and release, and their recovery from dead or late owners."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, func, insert, literal_column, null, select, update

from harvester import __version__
from harvester.ledger.database import Transaction
from harvester.ledger.filters import LEASED, released_state
from harvester.ledger.json_rows import rows_as_table
from harvester.ledger.schema import batches, owners, pairs, parts
from harvester.model import Reading
from harvester.schedule import ONCE

PAGE = 1000
"""How many readings of a dead owner are released in one transaction."""

_SEALED = batches.c.state == literal_column("'sealed'")


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A sealed batch with parts that are not stored yet in one place: its dataset, and their size there."""

    batch_id: str
    destination: str
    size_bytes: int


def register(tx: Transaction, owner: str) -> int:
    """Give an owner a new epoch, which ends its previous one; returns the new one."""
    tx.execute(delete(owners).where(owners.c.id == owner))
    row = insert(owners).values(id=owner, alive_until=tx.lease_until, version=__version__)
    return int(tx.execute(row.returning(owners.c.epoch)).scalar_one())


def renew(tx: Transaction, epoch: int) -> bool:
    """Extend all leases of an epoch. False if it is over."""
    row = update(owners).where(owners.c.epoch == epoch)
    return tx.execute(row.values(alive_until=tx.lease_until)).rowcount == 1


def release(tx: Transaction, readings: Sequence[Reading]) -> None:
    """Make leased readings due again; those that are no longer leased to their epoch stay as they are."""
    given = rows_as_table(tx, (pairs.c.id, pairs.c.epoch), [(each.pair_id, each.epoch) for each in readings])
    ours = and_(pairs.c.id == given.c.id, pairs.c.epoch == given.c.epoch)
    state = released_state(pairs.c.due_at, tx.now)
    tx.execute(update(pairs).where(ours).values(state=state, epoch=null(), ending_at=null()))


def held_by_others(tx: Transaction, workspace: str, *, epoch: int) -> bool:
    """Return whether another epoch holds readings of a workspace that are read once."""
    others = [each for each in _list_leased_epochs(tx) if each != epoch]
    theirs = and_(LEASED, pairs.c.epoch.in_(others), pairs.c.workspace == workspace, pairs.c.reading == ONCE)
    return tx.execute(select(pairs.c.id).where(theirs).limit(1)).first() is not None


def take_over(tx: Transaction, *, owner: str, epoch: int, list_dead: Callable[[set[str]], list[str]]) -> list[int]:
    """End the epochs of dead and late owners, and take over their sealed batches; returns the epochs to release.

    ``list_dead`` returns those of some owners that are dead. Epochs that ended before are returned as well, while they
    hold readings.
    """
    others = set(tx.execute(select(owners.c.id).where(owners.c.id != owner)).scalars())
    ended = owners.c.id.in_(list_dead(others)) | (owners.c.alive_until < tx.now)
    tx.execute(delete(owners).where(owners.c.id != owner, ended))
    living = select(owners.c.epoch)
    tx.execute(update(batches).where(_SEALED, batches.c.epoch.not_in(living)).values(epoch=epoch))
    alive = set(tx.execute(living).scalars())
    return [each for each in _list_leased_epochs(tx) if each not in alive]


def release_page(tx: Transaction, epoch: int) -> bool:
    """Release some readings of an epoch that is over; returns whether there may be more."""
    page = select(pairs.c.id).where(LEASED, pairs.c.epoch == epoch).limit(PAGE)
    values = {"state": released_state(pairs.c.due_at, tx.now), "epoch": null()}
    return tx.execute(update(pairs).where(pairs.c.id.in_(page)).values(values)).rowcount == PAGE


def list_sealed(tx: Transaction, epoch: int) -> list[SealedBatch]:
    """List the sealed batches of an epoch, the oldest first, once for each place."""
    sealed = (
        select(batches.c.id, parts.c.destination, func.sum(parts.c.size_bytes))
        .join(parts, batches.c.id == parts.c.batch_id)
        .where(_SEALED, batches.c.epoch == epoch, parts.c.stored_at.is_(None))
        .group_by(batches.c.id, parts.c.destination)
        .order_by(batches.c.id)
    )
    return [SealedBatch(*row) for row in tx.execute(sealed)]


def _list_leased_epochs(tx: Transaction) -> Iterable[int]:
    """List the epochs that hold readings, by one search of the index for each."""
    last = -1
    while True:
        following = select(func.min(pairs.c.epoch)).where(LEASED, pairs.c.epoch > last)
        found = tx.execute(following).scalar_one()
        if found is None:
            return
        yield found
        last = found
