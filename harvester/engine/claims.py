"""Claims readings for all workspaces that need some: one transaction for many, a few times a second.

A transaction for each workspace would keep the ledger busy all the time, and each waits for the interpreter's lock.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from harvester.engine.capacity import Capacity, share_room
from harvester.engine.lease import Lease
from harvester.ledger import Ledger
from harvester.model import Probe, Reading

CLAIM_SECONDS = 0.25
"""The time between two claims of a process with several workspaces at work."""

GATHER_SECONDS = 0.02
"""How long a claim waits, if several workspaces are active, so that more of them join it."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """Readings that were leased while the clock had the ``offset``."""

    readings: list[Reading]
    offset: float
    limit: int
    """The limit of the claim: if there are fewer readings, no more are due, or other processes are claiming them."""


@dataclass(slots=True)
class _PendingClaim:
    """What a lane needs. ``deadline`` is that of its workspace's last claimed reading: due ones come after it."""

    limit: int
    probe: Probe | None
    deadline: float
    claimed: "asyncio.Future[Claimed]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Claims:
    """Combines the claims that several lanes need into one transaction."""

    def __init__(self, ledger: Ledger, *, lease: Lease, capacity: Capacity, count_lanes: Callable[[], int]) -> None:
        """Claim for the owner that holds ``lease``, at most what ``capacity`` has room for."""
        self._ledger = ledger
        self._lease = lease
        self._capacity = capacity
        self._count_lanes = count_lanes
        self._pending: dict[str, _PendingClaim] = {}
        self._deadlines: dict[str, float] = {}
        self._requested = asyncio.Event()
        self._last_at = -math.inf

    async def claim(self, workspace: str, limit: int, probe: Probe | None = None) -> Claimed:
        """Lease up to ``limit`` due readings of a workspace, or the one that a ``probe`` describes."""
        pending = _PendingClaim(limit, probe, self._deadlines.get(workspace, -math.inf))
        self._pending[workspace] = pending
        self._requested.set()
        try:
            return await pending.claimed
        finally:
            if self._pending.get(workspace) is pending:
                del self._pending[workspace]

    async def run(self) -> None:
        """Claim until this is cancelled. Raises ``LedgerError``."""
        while True:
            await self._requested.wait()
            await self._wait_for_next_claim()
            self._requested.clear()
            pending = dict(self._pending)
            limits = share_room(
                {name: each.limit for name, each in pending.items()},
                {name: each.deadline for name, each in pending.items()},
                self._capacity.room,
            )
            if limits:
                await self._claim({name: pending[name] for name in limits}, limits)
            if len(limits) < len(pending):
                self._requested.set()  # the others wait for room
                await asyncio.sleep(CLAIM_SECONDS)

    async def _wait_for_next_claim(self) -> None:
        """Wait until the next claim may be made. A single lane need not wait: it claims rarely."""
        if self._count_lanes() > 1:
            since = asyncio.get_running_loop().time() - self._last_at
            await asyncio.sleep(max(CLAIM_SECONDS - since, GATHER_SECONDS))

    async def _claim(self, pending: dict[str, _PendingClaim], limits: dict[str, int]) -> None:
        if self._lease.over:
            await self._lease.renew()
        self._last_at = asyncio.get_running_loop().time()
        offset = self._ledger.clock.offset
        probes = {name: each.probe for name, each in pending.items() if each.probe is not None}
        plain = {name: limit for name, limit in limits.items() if name not in probes}
        by_workspace: dict[str, list[Reading]] = {name: [] for name in pending}
        readings = await self._ledger.batches.claim(plain, probes)
        self._capacity.take(len(readings))
        for reading in readings:
            by_workspace[reading.pair.workspace].append(reading)
        for name, each in pending.items():
            self._save_deadline(name, by_workspace[name])
            self._pending.pop(name, None)
            if not each.claimed.done():
                each.claimed.set_result(Claimed(by_workspace[name], offset, limits[name]))

    def _save_deadline(self, workspace: str, readings: list[Reading]) -> None:
        """Remember how urgent a workspace is, or forget it once nothing is due."""
        if readings:
            self._deadlines[workspace] = readings[-1].deadline
        else:
            self._deadlines.pop(workspace, None)
