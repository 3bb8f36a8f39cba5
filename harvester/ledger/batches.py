"""Leases readings to this process, seals batches, and recovers the readings and batches of dead or late owners."""

import asyncio
import random
from collections.abc import Mapping, Sequence

from sqlalchemy import BindParameter, String, and_, bindparam, func, select, update

from harvester.ledger import claim, due, leases, serving
from harvester.ledger.database import Database, Transaction
from harvester.ledger.dialect import Owner
from harvester.ledger.filters import NOW
from harvester.ledger.leases import SealedBatch
from harvester.ledger.locks import lock_ledger
from harvester.ledger.schema import batches, parts
from harvester.ledger.seal import ClosedBatch, LeaseOver, seal
from harvester.model import Part, Probe, Reading
from harvester.schedule import deferral_seconds

_OF_BATCH: BindParameter[str] = bindparam("of_batch", type_=String)
_THIS_BATCH = batches.c.id == _OF_BATCH
_SEALED = and_(_THIS_BATCH, batches.c.state == "sealed")
_UNSTORED_PART = and_(parts.c.batch_id == _OF_BATCH, parts.c.stored_at.is_(None))

_LIST_PARTS = (
    select(parts)
    .where(parts.c.batch_id == _OF_BATCH, parts.c.data.is_not(None))
    .order_by(parts.c.dataset, parts.c.destination)
)
_MARK_PART_STORED = (
    update(parts)
    .where(
        _UNSTORED_PART,
        parts.c.dataset == bindparam("of_dataset", type_=String),
        parts.c.destination == bindparam("at", type_=String),
        select(batches.c.id).where(_SEALED).exists(),
    )
    .values(
        data=None,
        stored_at=NOW,
        stored_order=select(func.coalesce(func.max(parts.c.stored_order), 0) + 1).scalar_subquery(),
    )
)
_MARK_BATCH_STORED = (
    update(batches).where(_SEALED, ~select(parts.c.batch_id).where(_UNSTORED_PART).exists()).values(state="stored")
)


class Batches:
    """The leases and batches of one owner, this process. Every method raises ``LedgerError``.

    Readings are leased to the owner's epoch. ``release`` and ``seal`` change only readings that are still leased to the
    epoch that claimed them, ``mark_stored`` and ``mark_conflict`` only a batch that is sealed.
    """

    def __init__(self, database: Database, owner: Owner, jitter: random.Random) -> None:
        """Act as this owner."""
        self.epoch: int | None = None
        """The present epoch; None before the first claim or recovery, which registers this owner."""
        self._database = database
        self._owner = owner
        self._jitter = jitter
        self._registering = asyncio.Lock()
        self._serves = False

    @property
    def owner(self) -> str:
        """The id of this owner, which it keeps for its whole life."""
        return self._owner.name

    async def register(self) -> None:
        """Begin a new epoch, which ends the previous one: call it when ``renew`` returns False.

        What was leased to the previous epoch cannot be sealed any more once it is recovered, so drop it, and call
        ``recover``.
        """
        self.epoch = await self._database.write(leases.register, self.owner, serves=self._serves)

    async def unregister(self) -> None:
        """End the epoch: this process ends, and others may recover what it has leased."""
        if self.epoch is not None:
            await self._database.write(leases.unregister, self.epoch)

    async def join_replicas(self) -> None:
        """Become one of the owners that divide the workspaces among themselves. Leases do not change."""
        await self._set_serves(serves=True)

    async def leave_replicas(self) -> None:
        """Leave all workspaces to the other owners. Leases do not change."""
        await self._set_serves(serves=False)

    async def _set_serves(self, *, serves: bool) -> None:
        self._serves = serves
        await self._database.write(serving.set_serves, await self._get_epoch(), serves=serves)

    async def list_replicas(self) -> list[str]:
        """List the owners that live and serve workspaces, in an order."""
        return await self._database.read(serving.list_replicas)

    async def renew(self) -> bool:
        """Extend all leases of this process. False if its epoch is over, because another process has recovered it."""
        return self.epoch is None or await self._database.write(leases.renew, self.epoch)

    async def list_due(self, workspaces: Sequence[str]) -> dict[str, float]:
        """Return for each workspace the time when its next reading falls due, 0 if a claim would lease one now.

        Workspaces without a planned reading are left out.
        """
        return await self._database.read(due.list_due, workspaces)

    async def get_next_due_at(self, workspace: str, *, max_deferrals: int | None = None) -> float | None:
        """Return when the next reading of a workspace falls due, 0 for now; None when none is planned.

        With ``max_deferrals`` only readings count that are due or were deferred, though not more often than that.
        """
        return await self._database.read(due.get_next_due_at, workspace, max_deferrals=max_deferrals)

    async def claim(self, limits: Mapping[str, int], probes: Mapping[str, Probe] | None = None) -> list[Reading]:
        """Lease due readings, of each workspace at most its limit, in one transaction.

        Those of one workspace are in order: the nearest deadline first, low priority last. Of a workspace in ``probes``
        only the one reading is leased that the probe describes, whatever its limit is.
        """
        epoch = await self._get_epoch()
        return await self._database.write(claim.claim, limits, probes or {}, epoch=epoch)

    async def release(self, readings: Sequence[Reading]) -> None:
        """Make leased readings due again, as they were; skips those that are not leased to their epoch any more."""
        await self._database.write(leases.release, readings)

    async def seal(self, closed: Sequence[ClosedBatch]) -> bool:
        """Record the outcomes of the readings of batches together with their parts, in one transaction.

        False, and nothing is recorded, if one of the readings is not leased to its epoch any more or one of the batches
        was sealed before.
        """
        epoch = await self._get_epoch()
        try:
            await self._database.write(
                seal,
                closed,
                epoch=epoch,
                delay=lambda deferrals: deferral_seconds(deferrals, self._jitter),
            )
        except LeaseOver:
            return False
        return True

    async def list_sealed_parts(self, batch_id: str) -> list[Part]:
        """List the parts of a batch, with their bytes, that are not stored yet."""
        return await self._database.read(list_sealed_parts, batch_id)

    async def mark_stored(self, batch_id: str, *, dataset: str, destination: str) -> bool:
        """Record that a sealed batch's part is stored in its dataset at a destination, and drop its bytes.

        False if there is no such part in a sealed batch.
        """
        return await self._database.write(mark_stored, batch_id, dataset=dataset, destination=destination)

    async def mark_conflict(self, batch_id: str) -> bool:
        """Set a sealed batch aside because a part of the same name has different bytes. False if it is not sealed."""
        return await self._database.write(mark_conflict, batch_id)

    async def has_leases_of_others(self, workspace: str) -> bool:
        """Return whether readings of a workspace that are read once are leased to another process."""
        return await self._database.read(leases.has_leases_of_others, workspace, epoch=await self._get_epoch())

    async def recover(self) -> list[SealedBatch]:
        """Release the readings of dead and late owners; returns the sealed batches that are now ours to store.

        An owner of this machine is dead as soon as its process has ended, any other one when it has not renewed for the
        time of a lease. Readings are released in pages, each a transaction, so that claims go on meanwhile.
        """
        epoch = await self._get_epoch()
        ended = await self._database.write(
            leases.take_over, owner=self._owner.name, epoch=epoch, list_dead=self._owner.list_dead
        )
        for each in ended:
            while await self._database.write(leases.release_page, each):
                pass
        return await self._database.read(leases.list_sealed, epoch)

    async def _get_epoch(self) -> int:
        """Return the present epoch; registers this owner at the first call."""
        async with self._registering:
            if self.epoch is None:
                await self.register()
        assert self.epoch is not None
        return self.epoch


def list_sealed_parts(tx: Transaction, batch_id: str) -> list[Part]:
    """List the parts of a batch whose bytes are still in the ledger."""
    return [
        Part(row.dataset, row.name, row.sha256, row.size_bytes, row.row_count, row.data, row.destination)
        for row in tx.execute(_LIST_PARTS, {"of_batch": batch_id})
    ]


def mark_stored(tx: Transaction, batch_id: str, *, dataset: str, destination: str) -> bool:
    """Drop the bytes of a sealed batch's part; the batch is stored with its last part."""
    lock_ledger(tx)  # the orders are in the order in which others see the parts, so that no loader misses one
    of_part = {"of_batch": batch_id, "of_dataset": dataset, "at": destination}
    marked = tx.execute(_MARK_PART_STORED, of_part).rowcount
    tx.execute(_MARK_BATCH_STORED, {"of_batch": batch_id})
    return marked == 1


def mark_conflict(tx: Transaction, batch_id: str) -> bool:
    """Set a sealed batch aside; its bytes are kept."""
    return tx.execute(update(batches).where(_SEALED).values(state="conflict"), {"of_batch": batch_id}).rowcount == 1
