"""Leases of batches: their duration, and their recovery from dead or late owners."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, literal_column, select, update

from harvester.ledger.database import Transaction
from harvester.ledger.filters import released_state
from harvester.ledger.schema import batches, pairs, parts
from harvester.schedule import ONCE

_HELD = batches.c.state.in_(("open", "sealed"))


class Lease(NamedTuple):
    """A batch and the token that makes it ours: a new owner gives it another token."""

    batch_id: str
    token: str


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A sealed batch that is not stored yet, the dataset it was sealed for, and its size there."""

    lease: Lease
    destination: str
    size_bytes: int


def renew(tx: Transaction, leases: Sequence[Lease]) -> set[str]:
    """Extend the leases of open and sealed batches whose token is still valid; returns the ids of those."""
    ids, tokens = [each.batch_id for each in leases], [each.token for each in leases]
    ours = and_(batches.c.id.in_(ids), batches.c.token.in_(tokens), _HELD)
    return set(
        tx.execute(update(batches).where(ours).values(lease_until=tx.lease_until).returning(batches.c.id)).scalars()
    )


def held_by_others(tx: Transaction, workspace: str, *, owner: str) -> bool:
    """Return whether another owner holds readings of a workspace that are read once."""
    theirs = and_(batches.c.state == "open", batches.c.workspace == workspace, batches.c.owner != owner)
    once = and_(pairs.c.state == literal_column("'leased'"), pairs.c.reading == ONCE)
    held = select(pairs.c.id).join(batches, batches.c.id == pairs.c.batch_id).where(theirs, once)
    return tx.execute(held.limit(1)).first() is not None


def recover(tx: Transaction, *, owner: str, list_dead: Callable[[set[str]], list[str]]) -> list[SealedBatch]:
    """Release the open batches of owners that are dead or whose lease has run out, and take over their sealed ones.

    ``list_dead`` returns those of some owners that are dead. Returns all sealed batches of ``owner`` that are not
    stored yet, the oldest first.
    """
    others = set(tx.execute(select(batches.c.owner).where(_HELD)).scalars()) - {owner}
    dead = list_dead(others)
    lapsed = and_(batches.c.owner != owner, batches.c.owner.in_(dead) | (batches.c.lease_until < tx.now))
    _release(tx, and_(batches.c.state == "open", lapsed))
    ours = {"owner": owner, "token": secrets.token_hex(8), "lease_until": tx.lease_until}
    tx.execute(update(batches).where(batches.c.state == "sealed", lapsed).values(ours))
    return _list_sealed(tx, owner)


def _release(tx: Transaction, which: ColumnElement[bool]) -> None:
    """Release the readings of batches, then delete the batches."""
    lost = select(batches.c.id).where(which).scalar_subquery()
    tx.execute(
        update(pairs)
        .where(pairs.c.state == "leased", pairs.c.batch_id.in_(lost))
        .values(state=released_state(pairs.c.due_at, tx.now), batch_id=None)
    )
    tx.execute(delete(batches).where(which))


def _list_sealed(tx: Transaction, owner: str) -> list[SealedBatch]:
    """List the sealed batches of an owner, the oldest first."""
    sealed = (
        select(batches.c.id, batches.c.token, parts.c.destination, func.sum(parts.c.size_bytes))
        .join(parts, batches.c.id == parts.c.batch_id)
        .where(batches.c.state == "sealed", batches.c.owner == owner)
        .group_by(batches.c.id, batches.c.token, parts.c.destination)
        .order_by(batches.c.id)
    )
    return [
        SealedBatch(Lease(batch_id, token), destination, size)
        for batch_id, token, destination, size in tx.execute(sealed)
    ]
