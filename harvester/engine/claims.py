"""Leases readings for a workspace: what its pace can serve in a minute, or one probe while its endpoint is in doubt.

The ledger records that a workspace is halted, so that a restart begins with a probe and not with a full batch.
"""

from harvester.braze.client import Client
from harvester.braze.pacer import Pacer
from harvester.braze.refusals import Trust
from harvester.ledger import Ledger
from harvester.model import Probe, Reading

CLAIM_READINGS = 1000
CLAIM_SECONDS = 60.0
FIRST_CLAIM_READINGS = 100


class Claims:
    """The claims of one workspace."""

    def __init__(self, *, workspace: str, ledger: Ledger, client: Client, pacer: Pacer) -> None:
        """Lease from ``ledger`` what ``pacer`` can serve and ``client`` trusts."""
        self._workspace = workspace
        self._ledger = ledger
        self._client = client
        self._pacer = pacer

    async def begin(self) -> None:
        """Start with a probe if the last process ended while the workspace was halted."""
        if self._workspace in await self._ledger.reports.list_halted():
            self._client.endpoint.refusals.doubt()

    @property
    def doubted(self) -> bool:
        """Whether refusals put the endpoint in doubt. Then pairs of other campaigns are requested one at a time."""
        return self._client.endpoint.refusals.trust is not Trust.TRUSTED

    async def claim(self) -> list[Reading]:
        """Lease readings; while there is doubt, one reading of a campaign that was not refused yet.

        Then nothing else may be in flight. Nothing when nothing of the kind is due.
        """
        await self._ledger.upkeep.schedule_due(self._workspace)
        await self._ledger.upkeep.expire(self._workspace)
        if self.doubted:
            return await self._claim_probe(self._client.endpoint.refusals.begin_probe())
        failed = self._client.endpoint.failed_campaigns
        if failed and self._pacer.backing_off:  # one campaign that fails must not keep the others from being asked
            readings = await self._claim_probe(Probe(tuple(failed), nearest=len(failed) % 2 == 0))
            if readings:
                return readings
            failed.clear()
        return await self._ledger.batches.claim({self._workspace: self._limit()})

    async def _claim_probe(self, probe: Probe) -> list[Reading]:
        """Lease the one reading that a probe describes."""
        return await self._ledger.batches.claim({}, {self._workspace: probe})

    def _limit(self) -> int:
        """Return how many readings the pace can serve in about a minute, the most that a kill may cost."""
        state = self._pacer.state()
        if not state.limit:
            return FIRST_CLAIM_READINGS
        return max(1, min(CLAIM_READINGS, round(state.pace * CLAIM_SECONDS)))

    async def end_campaigns(self) -> bool:
        """Decide what to do if no other campaign is due; returns whether to claim again at once.

        If nothing at all is due, the doubt stays.
        """
        if await self._ledger.batches.get_next_due_at(self._workspace) != 0.0:
            return False
        again = self._client.endpoint.end_campaigns(self._workspace)
        await self.record(captured=0)
        return again

    async def record(self, *, captured: int) -> None:
        """Record in the ledger whether the workspace is halted, after a batch with ``captured`` captures."""
        present = self._client.endpoint.halt
        if present is not None:
            await self._ledger.upkeep.halt(self._workspace, reason=present.reason)
        elif captured:
            await self._ledger.upkeep.resume(self._workspace)
