"""``harvester serve`` with many workspaces of mixed health, which are added, removed and repaired while it runs.

A workspace is healthy, refused (nobody listens at its endpoint), hanging (its endpoint never responds), revoked (Braze
refuses its key) or removed (it is not configured). A tenth of them have a place of their own. In the end all are
healthy, so each reading must be captured once.
"""

import asyncio
import signal
from enum import StrEnum
from multiprocessing.process import BaseProcess

from benchmarks.torture.check_output import CheckFailed, Pair, parse_rows
from benchmarks.torture.service_target import ServiceTarget
from tests.support.processes import free_port

MAX_CHANGES = 10
"""How many workspaces change their health at once."""


OWN_PLACE = "7"
"""The last digit of the workspaces that have a place of their own."""


class WorkspaceHealth(StrEnum):
    """What happens to the requests of a workspace."""

    HEALTHY = "healthy"
    REFUSED = "refused"
    HANGING = "hanging"
    REVOKED = "revoked"
    REMOVED = "removed"


class WorkspacesTarget(ServiceTarget):
    """Runs one service after the other with ``workspaces`` workspaces on the same queue."""

    workspaces = 50

    async def set_up(self) -> None:
        """Begin with every kind of health."""
        self._refused_port, self._hanging_port = free_port(), free_port()
        self._hanging = await asyncio.start_server(_never_respond, "127.0.0.1", self._hanging_port)
        (self.disk / "revoked.key").write_text("torture-key-that-was-revoked")
        self.keys.insert(0, "torture-key-that-was-revoked")
        kinds = [*WorkspaceHealth, *[WorkspaceHealth.HEALTHY] * len(WorkspaceHealth)]
        self._health = {f"w{at:02}": kinds[at % len(kinds)] for at in range(self.workspaces)}
        self._workspace_of: dict[Pair, str] = {}
        await super().set_up()

    def workspace_tables(self, ages: list[float]) -> list[str]:
        """Return the lines that configure all workspaces that are not removed."""
        lines = ["[workspace_defaults]", f"ages_days = {ages}", 'api_key_file = "valid.key"']
        for name, health in self._health.items():
            if health is WorkspaceHealth.REMOVED:
                continue
            ports = {WorkspaceHealth.REFUSED: self._refused_port, WorkspaceHealth.HANGING: self._hanging_port}
            lines += [f"[workspaces.{name}]", f'endpoint = "http://127.0.0.1:{ports.get(health, self.port)}"']
            if name.endswith(OWN_PLACE):
                lines.append(f'out = "{self.place.out}-{name}"')
            if health is WorkspaceHealth.REVOKED:
                lines.append('api_key_file = "revoked.key"')
        return lines

    def describe_pair(self, pair: Pair) -> dict[str, str]:
        """Return the pair with its workspace, one that is configured at its first message."""
        if pair not in self._workspace_of:
            served = [name for name, health in self._health.items() if health is not WorkspaceHealth.REMOVED]
            self._workspace_of[pair] = self.rng.choice(served)
        return super().describe_pair(pair) | {"workspace": self._workspace_of[pair]}

    async def inject_fault(self, process: BaseProcess) -> None:
        """Change some workspaces before another fault, at times with a signal to reload at once."""
        names = self.rng.sample(sorted(self._health), self.rng.randrange(MAX_CHANGES))
        self._health |= {name: self.rng.choice(list(WorkspaceHealth)) for name in names}
        self.counts["workspaces changed"] += len(names)
        self.write_configuration()
        if self.rng.random() < 0.5:
            self.signal(process, signal.SIGHUP)
        await self.wait_a_while(process)
        await super().inject_fault(process)

    def check_places(self) -> None:
        """Check that each place contains only the rows of its workspaces. Raises ``CheckFailed``."""
        for name, data in self.place.parts().items():
            owners = {row["workspace"] for row in parse_rows(name, data)}
            place = name.partition("/send_analytics/")[0]
            if wrong := [each for each in owners if place.endswith(each) != each.endswith(OWN_PLACE)]:
                raise CheckFailed(f"{name} contains rows of {wrong}")

    async def settle_all(self) -> None:
        """Repair all workspaces, and send again what was a dead letter because its workspace was removed."""
        self._health = dict.fromkeys(self._health, WorkspaceHealth.HEALTHY)
        self.write_configuration()
        dead = await self.broker_server.list_dead_letters(self.queue)
        self.counts["dead letters sent again"] += len(dead)
        await self.broker_server.send(self.queue, *(body for body, _ in dead))
        await super().settle_all()
        self.check_places()
        self._hanging.close()

    def is_expected(self, reason: str) -> bool:
        """Return whether the workspace of a dead letter was removed."""
        return "workspace" in reason


async def _never_respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read requests, and never respond."""
    while await reader.read(65_536):
        pass
    writer.close()
