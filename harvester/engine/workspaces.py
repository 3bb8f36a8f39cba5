"""The workspaces of a process, and its access to each: made when it has something due, dropped after an idle hour.

All of them share one pool of connections and one set of slots for requests.
"""

import random
from collections.abc import Callable, Container
from dataclasses import dataclass

from harvester.braze.client import Client
from harvester.braze.client_counters import DURATION_BOUNDS, ClientCounters
from harvester.braze.dated import DatedTransport
from harvester.braze.pace_state import PaceState
from harvester.braze.pacer import Pacer
from harvester.braze.refusals import Trust
from harvester.braze.slots import Slots
from harvester.braze.transport import BrazeTransport, Connections, Transport
from harvester.clock import BrazeClock, Clock
from harvester.health import HOLD_DESCRIPTIONS
from harvester.histogram import Histogram
from harvester.settings import Settings, Workspace

IDLE_SECONDS = 3600.0
"""How long access is kept without use."""

_CONNECTIONS_PER_SLOT = 4
"""Requests that gave up their slot because they hang keep their connection."""

Connect = Callable[[Workspace, str, Settings, Clock], Transport]
"""Connects to a workspace with its API key: the lowest seam, where a stand-in can replace Braze."""


def count_slots(settings: Settings) -> int:
    """Return how many requests of a process may be in flight: enough for one workspace to reach its own limit."""
    return max(settings.max_in_flight, settings.concurrency)


def count_connections(settings: Settings) -> int:
    """Return how many connections to Braze a process may open."""
    return _CONNECTIONS_PER_SLOT * count_slots(settings)


@dataclass(slots=True)
class WorkspaceAccess:
    """What makes the requests of one workspace."""

    transport: Transport
    pacer: Pacer
    client: Client
    used_at: float = 0.0
    unreachable: str | None = None
    """Why a run left pending pairs to the next one: no request succeeded for too long."""

    @property
    def droppable(self) -> bool:
        """Whether nothing has to be remembered: it works, or was never used."""
        endpoint = self.client.endpoint
        works = endpoint.halt is None and endpoint.failing is None and endpoint.refusals.trust is Trust.TRUSTED
        return works and self.unreachable is None


@dataclass(slots=True)
class _Record:
    """What outlives the access: the pace, and the counters of the process."""

    pacer: Pacer
    counters: ClientCounters


class Workspaces:
    """The configured workspaces."""

    def __init__(self, settings: Settings, clock: BrazeClock, connect: Connect | None = None) -> None:
        """Make requests to Braze, or through the transports that ``connect`` makes."""
        self.names = tuple(settings.workspaces)
        self.halted: set[str] = set()
        """The workspaces whose halt is recorded in the ledger; they begin with a probe."""
        self.durations = Histogram(DURATION_BOUNDS)
        """The seconds from each request to the end of its response."""
        self._settings = settings
        self._clock = clock
        self._connect = connect
        self._slots = Slots(count_slots(settings), clock)
        self._connections: Connections | None = None
        self._keys: dict[str, str] = {}
        self._access: dict[str, WorkspaceAccess] = {}
        self._records: dict[str, _Record] = {}
        self._stopped = False

    def __contains__(self, name: str) -> bool:
        """Return whether a workspace is configured."""
        return name in self._settings.workspaces

    def load_keys(self) -> None:
        """Load the API keys. Raises ``UsageError`` with all problems."""
        self._keys = self._settings.load_keys()

    def use_key(self, name: str, key: str) -> bool:
        """Use this key from now on, and probe at once if Braze refused the old one. False if it is in use already."""
        if self._keys.get(name) == key:
            return False
        self._keys[name] = key
        access = self.find(name)
        if access is not None:
            access.transport.use_key(key)
            access.pacer.lift()
        return True

    def find(self, name: str) -> WorkspaceAccess | None:
        """Return the access to a workspace, if it exists."""
        return self._access.get(name)

    def list_used(self) -> list[str]:
        """Return the workspaces to which there is or was access."""
        return list(self._records)

    def list_access(self) -> dict[str, WorkspaceAccess]:
        """Return the access to all workspaces that have it."""
        return dict(self._access)

    def get(self, name: str) -> WorkspaceAccess:
        """Return the access to a workspace, and make it at the first use."""
        access = self._access.get(name)
        if access is None:
            access = self._access[name] = self._open(name)
        access.used_at = self._clock.monotonic()
        return access

    def describe_hold(self, name: str, cause: str) -> str:
        """Return what a hold of a workspace waits for, in words for people."""
        access = self.find(name)
        return HOLD_DESCRIPTIONS.get(cause, cause) if access is None else access.client.endpoint.describe_hold(cause)

    def get_pace_state(self, name: str) -> PaceState:
        """Return what the pacer of a workspace does."""
        if name in self._records:
            return self._records[name].pacer.state()
        return PaceState.before_first_request(self._settings.workspaces[name].max_rate)

    def get_counters(self, name: str) -> ClientCounters:
        """Return what was requested for a workspace."""
        return self._records[name].counters if name in self._records else ClientCounters()

    async def drop_idle(self, busy: Container[str]) -> None:
        """Drop access that was not used for ``IDLE_SECONDS``, unless the workspace is ``busy`` or does not work."""
        until = self._clock.monotonic() - IDLE_SECONDS
        for name, access in list(self._access.items()):
            if access.used_at <= until and name not in busy and access.droppable:
                del self._access[name]
                await access.transport.close()

    def stop(self) -> None:
        """Let no further request leave; those in flight may end, for a few seconds."""
        self._stopped = True
        self._slots.stop()
        for access in self._access.values():
            access.client.stop()

    async def close(self) -> None:
        """Close all connections."""
        for access in self._access.values():
            await access.transport.close()
        if self._connections is not None:
            await self._connections.close()

    def _open(self, name: str) -> WorkspaceAccess:
        workspace = self._settings.workspaces[name]
        if name not in self._records:
            jitter = random.Random()  # noqa: S311 - no secret
            self._records[name] = _Record(
                Pacer(reserve=workspace.reserve, max_rate=workspace.max_rate, clock=self._clock, jitter=jitter),
                ClientCounters(self.durations),
            )
        record, transport = self._records[name], self._make_transport(name, workspace)
        client = Client(
            transport=DatedTransport(transport, self._clock),
            endpoint=workspace.endpoint,
            pacer=record.pacer,
            clock=self._clock,
            keep_raw=self._settings.raw,
            slots=self._slots,
            counters=record.counters,
        )
        if name in self.halted:
            client.endpoint.refusals.doubt()
        if self._stopped:
            client.stop()
        return WorkspaceAccess(transport, record.pacer, client)

    def _make_transport(self, name: str, workspace: Workspace) -> Transport:
        if self._connect is not None:
            return self._connect(workspace, self._keys[name], self._settings, self._clock)
        if self._connections is None:
            self._connections = Connections(count_connections(self._settings))
        return BrazeTransport(
            endpoint=workspace.endpoint, api_key=self._keys[name], connections=self._connections, clock=self._clock
        )
