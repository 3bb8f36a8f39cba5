"""The workspaces that this process serves while several processes share a ledger.

Each workspace is assigned to one living owner. The ledger records until when each counts as served. If its owner hangs,
or does not have it in its configuration, another process serves it: see ``take_over_unserved``.
"""

import math
from collections.abc import Collection

import structlog

from harvester.engine.assignment import assign
from harvester.engine.workspaces import Workspaces
from harvester.ledger import UNSERVED_SECONDS, Ledger

SAVE_SECONDS = 30.0
"""How often the ledger records which workspaces are served, and is asked for unserved ones."""

log = structlog.get_logger()


class ServedWorkspaces:
    """The set of workspaces whose readings this process may claim: all of them if it is alone."""

    def __init__(self, ledger: Ledger, workspaces: Workspaces) -> None:
        """Serve all workspaces until ``join``."""
        self.joined = False
        """Whether this process takes part in the assignment."""
        self._ledger = ledger
        self._clock = ledger.clock
        self._workspaces = workspaces
        self._owners: list[str] = []
        self._assigned: set[str] = set()
        self._taken_over: set[str] = set()
        """The workspaces of others that this process serves until nothing of them is due."""
        self._due_since: dict[str, float] = {}
        self._saved_at = -math.inf
        self._requests: dict[str, int] = {}
        """How many requests each workspace had sent when this was recorded last."""

    @property
    def alone(self) -> bool:
        """Whether no other owner serves workspaces."""
        return not self._owners or self._owners == [self._ledger.batches.owner]

    def __contains__(self, workspace: str) -> bool:
        """Return whether this process may claim for a workspace."""
        return self.alone or workspace in self._assigned or workspace in self._taken_over

    async def join(self) -> None:
        """Take part in the assignment. Raises ``LedgerError``."""
        await self._ledger.batches.join_replicas()
        self.joined = True
        await self.refresh()

    async def leave(self) -> None:
        """Leave all workspaces to others, at once; what is leased stays leased. Raises ``LedgerError``."""
        self.joined = False
        await self._ledger.batches.leave_replicas()

    async def refresh(self) -> bool:
        """Read which owners serve; returns whether they changed. Raises ``LedgerError``."""
        owners, was_alone = await self._ledger.batches.list_replicas(), self.alone
        if owners == self._owners:
            return False
        self._owners = owners
        self._taken_over.clear()
        self.assign()
        if not (was_alone and self.alone):
            served = len(self._workspaces) if self.alone else len(self._assigned)
            log.info("workspaces_assigned", workspaces=served, replicas=len(owners))
        return True

    def assign(self) -> None:
        """Compute the assignment again: owners or workspaces changed."""
        if not self.alone:
            self._assigned = assign(self._workspaces, self._owners, self._ledger.batches.owner)

    def return_to_owner(self, workspace: str) -> None:
        """Serve a workspace of another owner no longer, because no reading of it is due."""
        self._taken_over.discard(workspace)

    async def take_over_unserved(self, due: Collection[str]) -> None:
        """Take over those of the workspaces ``due`` that were due for ``UNSERVED_SECONDS`` without being served.

        ``due`` are workspaces of others that have something due now: call it after each poll of all workspaces. Also
        records which workspaces this process serves. Raises ``LedgerError``.
        """
        now = self._clock.monotonic()
        self._due_since = {name: self._due_since.get(name, now) for name in due}
        if now - self._saved_at < SAVE_SECONDS:
            return
        late = [name for name, since in self._due_since.items() if now - since >= UNSERVED_SECONDS]
        unserved = await self._ledger.upkeep.list_unserved(late) if late else []
        if served := [*self._list_served(), *unserved]:
            self._saved_at = now
            await self._ledger.upkeep.mark_served(served, seconds=UNSERVED_SECONDS)
        self._taken_over.update(unserved)
        if unserved:
            hint = "if they have a replica, check its log and its configuration: it has sent no request for minutes"
            log.warning("workspaces_taken_over", workspaces=len(unserved), examples=unserved[:5], hint=hint)

    def _list_served(self) -> list[str]:
        """List the workspaces that this process sends requests for, or holds.

        A claim alone does not count: a process that hangs may hold readings that it never requests.
        """
        paces = {name: self._workspaces.get_pace_state(name) for name in self._workspaces.list_access() if name in self}
        before, self._requests = self._requests, {name: each.requests for name, each in paces.items()}
        return [
            name
            for name, each in paces.items()
            if each.hold_cause is not None or each.in_flight or each.requests != before.get(name, 0)
        ]
