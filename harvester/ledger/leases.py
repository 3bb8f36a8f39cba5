"""Leases of readings: who owns them, their renewal and release, and their recovery from dead or late owners."""

import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Integer,
    String,
    Update,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)

from harvester import __version__
from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import LEASE_UNTIL, LEASED, released_state
from harvester.ledger.json_rows import encode_rows, rows_as_table
from harvester.ledger.locks import lock_pairs
from harvester.ledger.schema import batches, owners, pairs, parts
from harvester.ledger.steps import get_newest_schema
from harvester.model import Reading
from harvester.schedule import ONCE

PAGE = 1000
"""How many readings of a dead owner are released in one transaction."""

_SEALED = batches.c.state == literal_column("'sealed'")

_OF_EPOCH: BindParameter[int] = bindparam("of_epoch", type_=Integer)

_RENEW = update(owners).where(owners.c.epoch == _OF_EPOCH).values(alive_until=LEASE_UNTIL)

_OWNERS = select(owners.c.epoch, owners.c.id, owners.c.alive_until)

_TAKE_OVER = (
    update(batches)
    .where(_SEALED, batches.c.epoch.not_in(select(owners.c.epoch)))
    .values(epoch=bindparam("to_epoch", type_=Integer))
)

_LIST_SEALED = (
    select(batches.c.id, parts.c.destination, cast(func.sum(parts.c.size_bytes), BigInteger))
    .join(parts, batches.c.id == parts.c.batch_id)
    .where(_SEALED, batches.c.epoch == _OF_EPOCH, parts.c.stored_at.is_(None))
    .group_by(batches.c.id, parts.c.destination)
    .order_by(batches.c.id)
)

_LEASED_ONCE = (
    select(pairs.c.id)
    .where(LEASED, pairs.c.epoch == _OF_EPOCH, pairs.c.workspace == bindparam("of_workspace", type_=String))
    .where(pairs.c.reading == ONCE)
    .limit(1)
)

_NEXT_LEASED_EPOCH = select(func.min(pairs.c.epoch)).where(LEASED, pairs.c.epoch > bindparam("last", type_=Integer))


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A sealed batch with parts that are not stored yet in one place: its dataset, and their size there."""

    batch_id: str
    destination: str
    size_bytes: int


def create_owner_name() -> str:
    """Return a unique name that shows on which machine, or in which pod, a process runs."""
    return f"{re.sub('[^A-Za-z0-9.-]', '-', os.uname().nodename)[:64]}-{secrets.token_hex(4)}"


def register(tx: Transaction, owner: str, *, serves: bool) -> int:
    """Give an owner a new epoch, which ends its previous one; returns the new one. ``serves``: it serves workspaces."""
    tx.execute(delete(owners).where(owners.c.id == owner))
    row = insert(owners).values(
        id=owner,
        alive_until=LEASE_UNTIL,
        version=__version__,
        schema_version=get_newest_schema(),
        serves=int(serves),
    )
    return int(tx.execute(row.returning(owners.c.epoch)).scalar_one())


def unregister(tx: Transaction, epoch: int) -> None:
    """End an epoch, so that others see at once that its process has ended."""
    tx.execute(delete(owners).where(owners.c.epoch == epoch))


def renew(tx: Transaction, epoch: int) -> bool:
    """Extend all leases of an epoch. False if it is over."""
    return tx.execute(_RENEW, {"of_epoch": epoch}).rowcount == 1


def release(tx: Transaction, readings: Sequence[Reading]) -> None:
    """Make leased readings due again; those that are no longer leased to their epoch stay as they are."""
    lock_pairs(tx, [each.pair_id for each in readings])
    tx.execute(_release(tx.dialect), encode_rows([(each.pair_id, each.epoch) for each in readings]))


@cache
def _release(dialect: Dialect) -> Update:
    given = rows_as_table(dialect, (pairs.c.id, pairs.c.epoch))
    ours = and_(pairs.c.id == given.c.id, pairs.c.epoch == given.c.epoch)
    return update(pairs).where(ours).values(state=released_state(pairs.c.due_at), epoch=null(), ending_at=null())


def has_leases_of_others(tx: Transaction, workspace: str, *, epoch: int) -> bool:
    """Return whether readings of a workspace that are read once are leased to another epoch."""
    others = [each for each in _list_leased_epochs(tx) if each != epoch]
    return any(tx.execute(_LEASED_ONCE, {"of_epoch": each, "of_workspace": workspace}).first() for each in others)


def take_over(tx: Transaction, *, owner: str, epoch: int, list_dead: Callable[[set[str]], list[str]]) -> list[int]:
    """End the epochs of dead and late owners, and take over their sealed batches; returns the epochs to release.

    ``list_dead`` returns the owners whose process has ended. Epochs that ended before are returned as well, while they
    hold readings.
    """
    registered = tx.execute(_OWNERS).all()
    dead = set(list_dead({each.id for each in registered if each.id != owner}))
    others = [each for each in registered if each.id != owner]
    ended = [each.epoch for each in others if each.id in dead or each.alive_until < tx.lease_now]
    if ended:
        tx.execute(delete(owners).where(owners.c.epoch.in_(ended)))
    tx.execute(_TAKE_OVER, {"to_epoch": epoch})
    alive = {each.epoch for each in registered}.difference(ended)
    return [each for each in _list_leased_epochs(tx) if each not in alive]


def release_page(tx: Transaction, epoch: int) -> bool:
    """Release some readings of an epoch that is over; returns whether there may be more."""
    leased = select(pairs.c.id).where(LEASED, pairs.c.epoch == epoch).limit(PAGE)
    page = leased.with_for_update(skip_locked=True, key_share=True)
    values = {"state": released_state(pairs.c.due_at), "epoch": null()}
    return tx.execute(update(pairs).where(pairs.c.id.in_(page)).values(values)).rowcount == PAGE


def list_sealed(tx: Transaction, epoch: int) -> list[SealedBatch]:
    """List the sealed batches of an epoch, the oldest first, once for each place."""
    return [SealedBatch(*row) for row in tx.execute(_LIST_SEALED, {"of_epoch": epoch})]


def _list_leased_epochs(tx: Transaction) -> Iterable[int]:
    """List the epochs that hold readings, by one search of the index for each."""
    last = -1
    while True:
        found = tx.execute(_NEXT_LEASED_EPOCH, {"last": last}).scalar_one()
        if found is None:
            return
        yield found
        last = found
