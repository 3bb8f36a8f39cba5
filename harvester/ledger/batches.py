"""The second door, the batch protocol: claim, renew, seal, store, and recover the batches of dead or late owners."""

import random
from collections.abc import Sequence

from sqlalchemy import and_, func, select, update

from harvester.ledger import leases
from harvester.ledger.claim import claim, get_next_due_at
from harvester.ledger.database import Database, Transaction
from harvester.ledger.leases import Lease, SealedBatch
from harvester.ledger.schema import batches, parts
from harvester.ledger.seal import seal
from harvester.ledger.sqlite import OwnerLock
from harvester.model import Batch, Part, Probe, Settlement
from harvester.schedule import deferral_seconds


class Batches:
    """The batches of one owner, this process. Every method raises ``LedgerError``.

    ``renew`` and ``seal`` do nothing without a batch's valid token, ``mark_stored`` and ``mark_conflict`` nothing
    unless it is sealed.
    """

    def __init__(self, database: Database, lock: OwnerLock, jitter: random.Random) -> None:
        """Act as the owner that holds ``lock``."""
        self._database = database
        self._lock = lock
        self._jitter = jitter

    async def claim(self, workspace: str, *, limit: int, probe: Probe | None = None) -> Batch | None:
        """Lease up to ``limit`` due readings, the nearest deadline first.

        With a ``probe`` the one reading is leased that it describes. None when nothing is due.
        """
        return await self._database.write(claim, workspace, owner=self._lock.owner, limit=limit, probe=probe)

    async def get_next_due_at(self, workspace: str, *, max_deferrals: int | None = None) -> float | None:
        """Return when the next reading falls due that a claim would lease, 0 for now; None when none is planned.

        With ``max_deferrals`` only readings count that are due or were deferred, though not more often than that.
        """
        return await self._database.read(get_next_due_at, workspace, max_deferrals=max_deferrals)

    async def held_by_others(self, workspace: str) -> bool:
        """Return whether another process holds readings of a workspace that are read once."""
        return await self._database.read(leases.held_by_others, workspace, owner=self._lock.owner)

    async def renew(self, held: Sequence[Lease]) -> set[str]:
        """Extend leases; returns the ids of the batches that are still ours."""
        return await self._database.write(leases.renew, held)

    async def seal(
        self, batch: Batch, settlements: Sequence[Settlement], parts: Sequence[Part], *, destination: str
    ) -> bool:
        """Record the outcomes of a batch with its parts' bytes. False if the batch was given to another owner."""
        return await self._database.write(
            seal, batch, settlements, parts, destination=destination,
            delay=lambda deferrals: deferral_seconds(deferrals, self._jitter),
        )  # fmt: skip

    async def list_sealed_parts(self, batch_id: str) -> list[Part]:
        """List the parts of a batch, with their bytes, that are not stored yet."""
        return await self._database.read(list_sealed_parts, batch_id)

    async def mark_stored(self, batch_id: str, *, dataset: str) -> bool:
        """Record that a sealed batch's part is stored in its dataset, and drop its bytes. False if it is not sealed."""
        return await self._database.write(mark_stored, batch_id, dataset=dataset)

    async def mark_conflict(self, batch_id: str) -> bool:
        """Set a sealed batch aside because its part's name exists with other bytes. False if it is not sealed."""
        return await self._database.write(mark_conflict, batch_id)

    async def recover(self) -> list[SealedBatch]:
        """Release the batches of dead or late owners; returns the sealed batches that are now ours to store."""
        return await self._database.write(leases.recover, owner=self._lock.owner, list_dead=self._lock.list_dead)


def list_sealed_parts(tx: Transaction, batch_id: str) -> list[Part]:
    """List the parts of a batch whose bytes are still in the ledger."""
    waiting = select(parts).where(parts.c.batch_id == batch_id, parts.c.data.is_not(None)).order_by(parts.c.dataset)
    return [
        Part(row.dataset, row.name, row.sha256, row.size_bytes, row.row_count, row.data) for row in tx.execute(waiting)
    ]


def mark_stored(tx: Transaction, batch_id: str, *, dataset: str) -> bool:
    """Drop the bytes of a sealed batch's part; the batch is stored with its last part."""
    sealed = and_(batches.c.id == batch_id, batches.c.state == "sealed")
    waiting = and_(parts.c.batch_id == batch_id, parts.c.stored_at.is_(None))
    order = select(func.coalesce(func.max(parts.c.stored_order), 0) + 1).scalar_subquery()
    this = update(parts).where(waiting, parts.c.dataset == dataset, select(batches.c.id).where(sealed).exists())
    marked = tx.execute(this.values(data=None, stored_at=tx.now, stored_order=order)).rowcount
    more = select(parts.c.batch_id).where(waiting).exists()
    tx.execute(update(batches).where(sealed, ~more).values(state="stored"))
    return marked == 1


def mark_conflict(tx: Transaction, batch_id: str) -> bool:
    """Set a sealed batch aside; its bytes are kept."""
    sealed = and_(batches.c.id == batch_id, batches.c.state == "sealed")
    return tx.execute(update(batches).where(sealed).values(state="conflict")).rowcount == 1
