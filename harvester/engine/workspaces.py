"""The workspaces of a process, and its access to each: made when it has something due, dropped after an idle hour.

All of them share one pool of connections and one set of slots for requests. ``Workspaces`` is the only object that
knows which workspaces are configured: all others ask it each time.
"""

import random
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass

import structlog

from harvester.braze.client import Client
from harvester.braze.client_counters import DURATION_BOUNDS, ClientCounters
from harvester.braze.connections import Connections, count_connections, count_slots
from harvester.braze.dated import DatedTransport
from harvester.braze.pace_state import PaceState
from harvester.braze.pacer import Pacer
from harvester.braze.refusals import Trust
from harvester.braze.slots import Slots
from harvester.braze.transport import BrazeTransport, Transport
from harvester.clock import BrazeClock, Clock
from harvester.condition import HOLD_DESCRIPTIONS
from harvester.histogram import Histogram
from harvester.settings import Changes, Settings, Workspace, changes

IDLE_SECONDS = 3600.0
"""How long access is kept without use."""

log = structlog.get_logger()

Connect = Callable[[Workspace, str, Settings, Clock], Transport]
"""Connects to a workspace with its API key: tests replace Braze here."""


@dataclass(slots=True)
class WorkspaceAccess:
    """What makes the requests of one workspace."""

    transport: Transport
    pacer: Pacer
    client: Client
    used_at: float = 0.0
    unreachable: str | None = None
    """Why a run left pending pairs to the next one: no request succeeded for too long."""
    retired: bool = False
    """Whether its workspace was removed, or has other access now: its lane ends once nothing is in flight."""

    @property
    def droppable(self) -> bool:
        """Whether it can be dropped without losing state: its endpoint works, or was never used."""
        endpoint = self.client.endpoint
        works = endpoint.halt is None and endpoint.failing is None and endpoint.refusals.trust is Trust.TRUSTED
        return works and self.unreachable is None


@dataclass(slots=True)
class _Record:
    """What outlives the access: the pace, and the counters of the process."""

    counters: ClientCounters
    pacer: Pacer | None = None
    """None after its limits changed, until it is used again."""


def _access_settings(settings: Settings, name: str) -> tuple[object, ...]:
    """Return the settings that access to a workspace is made with."""
    workspace = settings.workspaces[name]
    return workspace.endpoint, workspace.reserve, workspace.max_rate, settings.load_proxy(name)


class Workspaces(Collection[str]):
    """The configured workspaces: a collection of their names. ``apply`` is the only method that changes them."""

    def __init__(self, settings: Settings, clock: BrazeClock, connect: Connect | None = None) -> None:
        """Make requests to Braze, or through the transports that ``connect`` makes."""
        self.settings = settings
        self.halted: set[str] = set()
        """The workspaces whose halt is recorded in the ledger; they begin with a probe."""
        self.durations = Histogram(DURATION_BOUNDS)
        """The seconds from each request to the end of its response."""
        self._clock = clock
        self._connect = connect
        self._slots = Slots(count_slots(settings), clock)
        self._connections: Connections | None = None
        self._keys: dict[str, str] = {}
        self._access: dict[str, WorkspaceAccess] = {}
        self._records: dict[str, _Record] = {}
        self._retired: list[WorkspaceAccess] = []
        self._stopped = False

    def __contains__(self, name: object) -> bool:
        """Return whether a workspace is configured."""
        return name in self.settings.workspaces

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the workspaces that are configured now, whatever is applied meanwhile."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of workspaces."""
        return len(self.settings.workspaces)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the workspaces that are configured now."""
        return tuple(self.settings.workspaces)

    def load_keys(self) -> None:
        """Load the API keys. Raises ``UsageError`` with all problems."""
        self._keys = self.settings.load_keys()

    def apply(self, settings: Settings) -> Changes:
        """Serve the workspaces of other settings, whose keys and proxies are loaded.

        A workspace whose endpoint, proxy, reserve or rate changed gets other access at its next use. A new key is used
        at once, and probed if Braze refused the old one.
        """
        found, old = changes(self.settings, settings), self.settings
        old_keys, self.settings, self._keys = self._keys, settings, settings.load_keys()
        for name in found.removed:
            self._retire(name)
            self._records.pop(name, None)
        for name in found.changed:
            if _access_settings(old, name) != _access_settings(settings, name):
                self._retire(name)
            elif self._keys[name] != old_keys[name]:
                log.info("key_replaced", workspace=name)
                if (access := self.find(name)) is not None:
                    access.transport.use_key(self._keys[name])
                    access.pacer.lift()
        return found

    def _retire(self, name: str) -> None:
        """Send no further request with the access to a workspace; those in flight may end, for a few seconds."""
        access = self._access.pop(name, None)
        if access is not None:
            access.retired = True
            access.client.stop()
            self._retired.append(access)
        if name in self._records:
            self._records[name].pacer = None

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

    def find_client(self, name: str) -> Client | None:
        """Return the client of a workspace; None if the workspace is not configured any more."""
        return self.get(name).client if name in self else None

    def describe_hold(self, name: str, cause: str) -> str:
        """Return what a hold of a workspace waits for, in words for people."""
        access = self.find(name)
        return HOLD_DESCRIPTIONS.get(cause, cause) if access is None else access.client.endpoint.describe_hold(cause)

    def get_pace_state(self, name: str) -> PaceState:
        """Return what the pacer of a workspace does."""
        record = self._records.get(name)
        if record is not None and record.pacer is not None:
            return record.pacer.state()
        return PaceState.before_first_request(self.settings.workspaces[name].max_rate)

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
        ended = [each for each in self._retired if not each.pacer.state().in_flight]
        self._retired = [each for each in self._retired if each not in ended]
        for access in ended:
            await access.transport.close()

    def stop(self) -> None:
        """Send no further request; those in flight may end, for a few seconds."""
        self._stopped = True
        self._slots.stop()
        for access in self._access.values():
            access.client.stop()

    async def close(self) -> None:
        """Close all connections."""
        for access in (*self._access.values(), *self._retired):
            await access.transport.close()
        if self._connections is not None:
            await self._connections.close()

    def _open(self, name: str) -> WorkspaceAccess:
        workspace = self.settings.workspaces[name]
        record = self._records.setdefault(name, _Record(ClientCounters(self.durations)))
        transport = self._make_transport(name, workspace)
        if record.pacer is None:
            jitter = random.Random()  # noqa: S311 - no secret
            record.pacer = Pacer(
                reserve=workspace.reserve, max_rate=workspace.max_rate, clock=self._clock, jitter=jitter
            )
        client = Client(
            transport=DatedTransport(transport, self._clock),
            endpoint=workspace.endpoint,
            pacer=record.pacer,
            clock=self._clock,
            keep_raw=self.settings.raw,
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
            return self._connect(workspace, self._keys[name], self.settings, self._clock)
        if self._connections is None:
            self._connections = Connections(count_connections(self.settings), ca_file=self.settings.ca_file)
        key, proxy = self._keys[name], self.settings.load_proxy(name)
        return BrazeTransport(workspace.endpoint, key, connections=self._connections, clock=self._clock, proxy=proxy)
