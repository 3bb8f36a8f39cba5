"""The lease of this process on the readings that it claimed."""

import asyncio
from collections.abc import Callable

import structlog

from harvester.ledger import Ledger
from harvester.model import Reading

log = structlog.get_logger()


class Lease:
    """Renews the lease, and begins a new one if it is lost.

    It is over by this process's monotonic clock if it was not renewed in time: another process may hold the readings.
    """

    def __init__(self, ledger: Ledger, on_lost: Callable[[], None]) -> None:
        """Call ``on_lost`` once a new epoch has begun, so that everything that the previous one leased is dropped."""
        self._ledger = ledger
        self._on_lost = on_lost
        self._renewed_at = ledger.clock.monotonic()
        self._replacing = asyncio.Lock()

    @property
    def epoch(self) -> int | None:
        """The present epoch."""
        return self._ledger.batches.epoch

    @property
    def over(self) -> bool:
        """Whether it was not renewed in time. Then nothing may be requested or sealed before it is renewed."""
        return self._ledger.clock.monotonic() - self._renewed_at >= self._ledger.lease_seconds

    def covers(self, reading: Reading) -> bool:
        """Return whether a reading that was claimed is certainly leased still, so that it may be requested."""
        return reading.epoch == self.epoch and not self.over

    async def renew(self) -> None:
        """Extend the lease; if it was lost, begin a new one. Raises ``LedgerError``."""
        began, epoch = self._ledger.clock.monotonic(), self.epoch
        if await self._ledger.batches.renew():
            self._renewed_at = began
        else:
            await self.replace(epoch)

    async def replace(self, epoch: int | None) -> None:
        """Begin a new epoch in place of ``epoch``, unless that has happened. Raises ``LedgerError``."""
        async with self._replacing:
            if self.epoch != epoch:
                return
            log.warning(
                "leases_lost", reason="they were not renewed in time", hint="if this repeats, look for a lack of CPU"
            )
            began = self._ledger.clock.monotonic()
            await self._ledger.batches.register()
            self._renewed_at = began
            self._on_lost()
