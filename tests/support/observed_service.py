"""A service on virtual time with stand-ins for Braze, and what page, probes, metrics and log show of it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client.parser import text_string_to_metric_families as families
from pydantic import SecretStr

from harvester.braze.quota import QuotaReport
from harvester.braze.transport import Response
from harvester.errors import ExchangeError, ExitCode
from harvester.ledger import Ledger
from harvester.model import Pair, SentPair
from harvester.monitor.health import Health
from harvester.monitor.snapshot import Snapshot
from harvester.service.service import Service
from harvester.settings import Settings, SettingsSource, Workspace
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import Compression, FolderSink
from harvester.web.metrics import encode_metrics
from harvester.web.page import render_page
from tests.support.secret_canary import KEY

AT = "https://rest.fra-01.braze.eu"


GOOD = b'{"message": "success", "data": []}'


Outage = ExchangeError | int | bytes


class Wire:
    """A stand-in for the transport of one workspace. ``outage`` is the result of every request; None is success."""

    def __init__(self, outage: Outage | None = None) -> None:
        """Start with this behaviour."""
        self.outage = outage
        self.remaining: int | None = None

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Respond after the latency, or after the client's timeout."""
        timed_out = isinstance(self.outage, ExchangeError) and self.outage.cause == "timeout"
        await asyncio.sleep(30.0 if timed_out else 0.05)
        if isinstance(self.outage, ExchangeError):
            raise ExchangeError(self.outage.cause, str(self.outage).partition(": ")[2])
        status = self.outage if isinstance(self.outage, int) else 200
        body = self.outage if isinstance(self.outage, bytes) else GOOD
        return Response(status, body, self._quota(), 0.05)

    def _quota(self) -> QuotaReport:
        if self.remaining is None:
            return QuotaReport()
        start = VirtualClock().starts_at
        now = int(start + asyncio.get_running_loop().time())
        return QuotaReport(limit=250_000, remaining=self.remaining, reset_at=start + 3000, server_time=now)

    def use_key(self, _api_key: str) -> None:
        """Accept any key."""

    def scrub(self, text: str) -> str:
        """Replace the key in the text."""
        return text.replace(KEY, "[key]")

    async def close(self) -> None:
        """Nothing to close."""


def arrivals(count: int, *workspaces: str, sent_at: float | None = None) -> list[SentPair]:
    """Return this number of sends for each workspace."""
    return [SentPair(Pair(name, "c", f"s{number}"), sent_at) for number in range(count) for name in workspaces]


class Seen:
    """What page, probe, metrics and log show of one service."""

    def __init__(self, service: Service, clock: VirtualClock, logs: list[dict], ledger: Ledger) -> None:
        """Observe ``service``."""
        self.service, self.clock, self.logs, self.ledger = service, clock, logs, ledger
        self.snapshot = Snapshot(0, 0)

    async def at(self, seconds: float) -> Snapshot:
        """Wait until a monotonic time, and take a snapshot."""
        await asyncio.sleep(seconds - self.clock.monotonic())
        self.snapshot = await self.service.monitor.snapshot()
        return self.snapshot

    async def enqueue(self, count: int, *workspaces: str) -> None:
        """Enqueue pairs that are due now."""
        await self.service.enqueue(arrivals(count, *workspaces), once=True)

    @property
    def page(self) -> str:
        """The status page."""
        return render_page(Health(self.snapshot), now=self.clock.wall()).replace("&#34;", '"')

    @property
    def metrics(self) -> dict[tuple[str, ...], float]:
        """Every metric by name and labels."""
        text = encode_metrics(self.snapshot, "")[0].decode()
        return {(s.name, *sorted(s.labels.values())): s.value for f in families(text) for s in f.samples}

    def events(self, name: str) -> list[dict]:
        """The log lines of one event."""
        return [each for each in self.logs if each["event"] == name]


def served(tmp_path, wires: dict[str, Wire], story: Callable[[Seen], Awaitable[None]], **more) -> None:
    """Run a service on virtual time, with one workspace for each wire or as in ``config``, while ``story`` runs."""

    async def run() -> None:
        clock = VirtualClock()
        source = SettingsSource(more["config"], {}, {}) if "config" in more else None
        workspaces = {name: Workspace(endpoint=AT, api_key=SecretStr(f"{KEY}-{name}")) for name in wires}
        settings = source.load() if source else Settings(workspaces=workspaces, web_port=0, concurrency=8)
        by_key = {f"{KEY}-{name}": wire for name, wire in wires.items()}
        async with await Ledger.open(more.get("location", tmp_path / "ledger.db"), clock=clock) as ledger:
            for name in more.get("once", ()):
                await ledger.intake.enqueue(arrivals(10, name), once=True)
            service = Service(
                settings, source, ledger=ledger, sink=more.get("sink") or FolderSink(tmp_path / "out"),
                compression=Compression.NONE, connect=lambda _workspace, key, *_: by_key[key],
                until_idle="ends_with" in more,
            )  # fmt: skip
            with structlog.testing.capture_logs() as logs:
                task = asyncio.create_task(service.serve())
                await asyncio.sleep(1)
                await story(Seen(service, clock, logs, ledger))
                if "ends_with" not in more:
                    service.stop()
                assert await task == more.get("ends_with", ExitCode.COMPLETE)

    run_virtual(run())
