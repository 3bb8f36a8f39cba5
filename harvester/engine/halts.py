"""Records in the ledger which workspaces are halted, so that a restart begins with a probe and commands show it."""

from harvester.braze.endpoint import Endpoint
from harvester.braze.refusals import Trust
from harvester.engine.workspaces import Workspaces
from harvester.ledger import Ledger


class Halts:
    """The halts of all workspaces, as the ledger has them."""

    def __init__(self, ledger: Ledger, workspaces: Workspaces) -> None:
        """Keep ``workspaces.halted`` equal to what the ledger records."""
        self._ledger = ledger
        self._workspaces = workspaces
        self._reasons: dict[str, str] = {}

    async def load(self) -> None:
        """Read which workspaces were halted when the last process ended. Raises ``LedgerError``."""
        self._reasons = {name: reason for name, (reason, _) in (await self._ledger.reports.list_halted()).items()}
        self._workspaces.halted = set(self._reasons)

    async def record(self, workspace: str, endpoint: Endpoint, *, captured: bool) -> None:
        """Record a halt that has begun, or one that a capture has ended. Raises ``LedgerError``."""
        halt = endpoint.halt
        if halt is not None and self._reasons.get(workspace) != halt.reason:
            self._reasons[workspace] = halt.reason
            self._workspaces.halted.add(workspace)
            await self._ledger.upkeep.halt(workspace, reason=halt.reason)
        elif halt is None and captured and workspace in self._reasons and endpoint.refusals.trust is Trust.TRUSTED:
            del self._reasons[workspace]
            self._workspaces.halted.discard(workspace)
            await self._ledger.upkeep.resume(workspace)
