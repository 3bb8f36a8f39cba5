"""Renews the leases of this process, and begins a new epoch when another process has recovered them."""

import asyncio

import structlog

from harvester.engine.storing import Storing
from harvester.ledger import Ledger

log = structlog.get_logger()


class Renewal:
    """One per process. Readings of a previous epoch must be dropped: see ``Reading.epoch``."""

    def __init__(self, ledger: Ledger, storing: Storing) -> None:
        """Renew in ``ledger``; sealed batches that a lost epoch leaves go to ``storing``."""
        self._ledger = ledger
        self._storing = storing
        self._renewing = asyncio.Lock()

    async def run(self) -> None:
        """Renew four times in the length of a lease, until it is cancelled. Raises ``LedgerError``."""
        while True:
            await asyncio.sleep(self._ledger.lease_seconds / 4)
            await self.renew()

    async def renew(self) -> None:
        """Renew once. Raises ``LedgerError``."""
        async with self._renewing:
            if await self._ledger.batches.renew():
                return
            log.warning("leases_lost", hint="this process did not renew its leases in time; its readings are repeated")
            await self._ledger.batches.register()
            await self._storing.recover()
