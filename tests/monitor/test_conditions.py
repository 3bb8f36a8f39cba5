"""A service that captures nothing shows it on the page, in the probes, in the metrics and in the log."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client.parser import text_string_to_metric_families as families
from pydantic import SecretStr

from harvester.braze.quota import QuotaReport
from harvester.braze.transport import Response
from harvester.engine.wiring import Harvesting
from harvester.errors import BrokerError, ExchangeError, ExitCode, SinkError, format_cause
from harvester.health import Component
from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.model import Pair, SentPair
from harvester.monitor.conditions import Conditions
from harvester.monitor.health import Health
from harvester.monitor.snapshot import Snapshot, StoreState
from harvester.service.service import Service
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.sources.message import MessageParser
from harvester.sources.trigger import Trigger
from harvester.storage import Compression, FolderSink
from harvester.web.metrics import encode_metrics
from harvester.web.page import render_page
from tests.support.secret_canary import KEY

AT = "https://rest.fra-01.braze.eu"
GOOD = b'{"message": "success", "data": []}'

Outage = ExchangeError | int | bytes
FAILURES: dict[str, Outage] = {
    "connection_refused": ExchangeError("connection_refused", ""),
    "name_not_found": ExchangeError("name_not_found", ""),
    "certificate": ExchangeError("certificate", "self-signed certificate"),
    "timeout": ExchangeError("timeout", ""),
    "status_502": 502,
    "status_429": 429,  # without a word of a quota that would explain it
    "unparsable": b"<html>Please log in</html>",
}


class Wire:
    """A stand-in for the transport of one workspace. ``outage`` is the result of every request; None is success."""

    def __init__(self, outage: Outage | None = None) -> None:
        """Begin like that."""
        self.outage = outage
        self.remaining: int | None = None

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Answer after a while, or after the time for which the client waits at the most."""
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

    def use_key(self, _api_key: str) -> bool:
        """Have one key."""
        return False

    def scrub(self, text: str) -> str:
        """Take the key out."""
        return text.replace(KEY, "[key]")

    async def close(self) -> None:
        """Nothing to close."""


def arrivals(count: int, *workspaces: str, sent_at: float | None = None) -> list[SentPair]:
    """So many sends of each workspace."""
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
    """Run a service on virtual time, with one workspace for each wire, while ``story`` runs."""

    async def run() -> None:
        clock = VirtualClock()
        file = more.get("key_file")
        workspaces = {
            name: Workspace(endpoint=AT, api_key=None if file else SecretStr(f"{KEY}-{name}"), api_key_file=file)
            for name in wires
        }
        settings = Settings(workspaces=workspaces, web_port=0, concurrency=8)
        by_key = {f"{KEY}-{name}": wire for name, wire in wires.items()}
        async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
            for name in more.get("once", ()):
                await ledger.intake.enqueue(arrivals(10, name), once=True)
            service = Service(
                settings, ledger=ledger, sink=more.get("sink") or FolderSink(tmp_path / "out"),
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


def test_page_probe_metrics_and_log_show_an_unavailable_endpoint_and_its_recovery(tmp_path):
    """Within two minutes they show the cause, and they show when it is over."""
    for number, (cause, outage) in enumerate(FAILURES.items()):
        wire = Wire(outage)

        async def story(seen: Seen, wire: Wire = wire, cause: str = cause) -> None:
            await seen.enqueue(40, "us")
            (reason,) = (await seen.at(118)).unready_reasons()
            assert reason.startswith('Every request of workspace "us" fails: ')
            assert f"{AT}" in reason
            assert format_cause(cause) in reason
            assert f'<h1>Not healthy</h1><ul class="alerts"><li>{reason}, for ' in seen.page
            assert seen.metrics["harvester_condition", *sorted((cause, "endpoint", "us"))] == 1
            assert seen.metrics["harvester_ready",] == 0
            assert [each["cause"] for each in seen.events("endpoint_unavailable")] == [cause]
            lasts, hold = (730, 320) if cause == "connection_refused" else (120, 140)
            await seen.at(lasts)
            logged = [
                each for each in seen.logs if each["log_level"] != "debug" and each["event"] != "response_unusable"
            ]
            assert len([each for each in logged if each["event"] == "endpoint_unavailable"]) == 1 + lasts // 600
            assert not [each for each in logged if each["event"] == "batch_sealed"]
            wire.outage = None
            assert (await seen.at(lasts + hold)).unready_reasons() == []
            assert len(seen.events("endpoint_recovered")) == 1
            assert "<h1>Healthy</h1>" in seen.page
            assert seen.metrics["harvester_last_capture_timestamp_seconds", "us"] > seen.clock.starts_at + lasts

        served(tmp_path / str(number), {"us": wire}, story)


def test_a_429_is_an_outage_unless_the_quota_explains_it(tmp_path):
    """With quota left, a 429 is a condition. Without quota, it is the rate limit."""
    for number, (remaining, blind) in enumerate(((200_000, True), (0, False))):
        wire = Wire(429)
        wire.remaining = remaining

        async def story(seen: Seen, wire: Wire = wire, blind: bool = blind) -> None:  # noqa: FBT001 - a case of the loop
            await seen.enqueue(40, "us")
            await seen.at(118)
            assert [each.cause for each in seen.snapshot.conditions] == (["status_429"] if blind else [])
            assert [each["cause"] for each in seen.events("endpoint_unavailable")] == (["status_429"] if blind else [])
            assert seen.metrics["harvester_hold", "throttled", "us"] == 1
            wire.outage, wire.remaining = None, None
            assert (await seen.at(3100)).conditions == ()
            assert len(seen.events("endpoint_recovered")) == blind

        served(tmp_path / str(number), {"us": wire}, story)


def test_until_idle_does_not_report_complete_while_readings_are_unfinished(tmp_path):
    """Otherwise a container for one trigger ends with exit code 0 although nothing was captured."""

    async def wait(seen: Seen) -> None:
        await seen.at(600)

    async def interrupt(seen: Seen) -> None:
        seen.service.stop()

    dead = ExchangeError("connection_refused", "")
    stories = ((dead, wait, ExitCode.PARTIAL), (dead, interrupt, ExitCode.INTERRUPTED), (None, wait, ExitCode.COMPLETE))
    for number, (outage, story, code) in enumerate(stories):
        served(tmp_path / str(number), {"us": Wire(outage)}, story, once=["us"], ends_with=code)


def test_pairs_of_a_workspace_that_is_not_configured_are_a_condition(tmp_path):
    """Page, metrics and log show it, and pairs at risk are counted as by ``harvester status``."""

    async def story(seen: Seen) -> None:
        await seen.ledger.intake.enqueue(arrivals(10, "gone", sent_at=seen.clock.wall() - 13.9 * 86_400))
        (condition,) = (await seen.at(700)).conditions
        assert (condition.component, condition.subject, condition.cause) == (Component.WORKSPACE, "gone", "unserved")
        assert condition.sentence in seen.page
        assert 'Workspace "gone": 10 pairs at risk of expiring unread' in seen.page
        assert seen.snapshot.unready_reasons() == []
        assert seen.metrics["harvester_condition", "gone", "unserved", "workspace"] == 1
        assert seen.metrics["harvester_at_risk_pairs", "gone"] == 10
        assert (await seen.ledger.reports.count_at_risk())["gone"] == 10
        assert [each["workspace"] for each in seen.events("workspace_unserved")] == ["gone"]
        await seen.ledger.intake.remove([Pair("gone", "c", f"s{number}") for number in range(10)])
        assert (await seen.at(1300)).conditions == ()
        assert len(seen.events("workspace_served")) == 1

    served(tmp_path, {"us": Wire()}, story)


def test_the_page_shows_a_part_conflict():
    """An alert must not fire while the page says that the service is healthy."""
    taken = Snapshot(0, 0, store=StoreState(batches={"conflict": 1}))
    assert taken.alerts() == ["1 batch cannot be stored: other bytes have the name of a part"]
    assert taken.unready_reasons() == []


def test_failures_among_successes_are_no_condition(tmp_path):
    """They are retried, and the page and the probe do not change."""
    wire = Wire()

    async def story(seen: Seen) -> None:
        await seen.enqueue(50, "us")
        for at in range(10, 200, 60):
            wire.outage = 502
            await seen.at(at)
            wire.outage = None
            await seen.at(at + 5)
            await seen.enqueue(at, "us")
            assert (await seen.at(at + 30)).conditions == ()
        assert seen.events("endpoint_unavailable") == []

    served(tmp_path, {"us": wire}, story)


def test_one_blocked_workspace_among_several_leaves_the_process_ready(tmp_path):
    """Page and metrics show it. ``/readyz`` is 200 until every busy workspace is blocked."""
    us, eu = Wire(ExchangeError("connection_refused", "")), Wire()

    async def story(seen: Seen) -> None:
        await seen.enqueue(100, "us", "eu")
        assert (await seen.at(120)).unready_reasons() == []
        assert 'Every request of workspace "us" fails' in seen.page
        assert seen.metrics["harvester_condition", "connection_refused", "endpoint", "us"] == 1
        assert (seen.metrics["harvester_ready",], seen.snapshot.workspaces[1].due) == (1, 0)
        eu.outage = 401
        await seen.enqueue(200, "eu")
        assert len((await seen.at(240)).unready_reasons()) == 2
        assert seen.metrics["harvester_condition", "eu", "key", "status_401"] == 1
        assert [each["workspace"] for each in seen.events("key_unusable")] == ["eu"]
        us.outage = eu.outage = None
        assert (await seen.at(1000)).conditions == ()
        assert [each["workspace"] for each in seen.events("key_usable")] == ["eu"]

    served(tmp_path, {"us": us, "eu": eu}, story)


def test_page_metrics_and_ledger_count_the_same_pairs_at_risk(tmp_path):
    """``harvester status`` reads only the ledger, and agrees with the page, also for a halted workspace."""
    eu, us = Wire(), Wire(401)

    async def story(seen: Seen) -> None:
        now = seen.clock.wall()
        for name in ("eu", "us"):
            pairs = [SentPair(Pair(name, "c", f"s{number}"), now - 13.9 * 86_400) for number in range(300)]
            await seen.service.enqueue(pairs, once=True)
        await seen.at(30)
        at_risk = {each.name: each.at_risk for each in seen.snapshot.workspaces}
        assert at_risk == await seen.ledger.reports.count_at_risk() | {"eu": 0}
        assert at_risk == {"eu": 0, "us": 300}
        assert seen.metrics["harvester_at_risk_pairs", "us"] == 300
        assert 'Workspace "us": 300 pairs at risk of expiring unread' in seen.page

    served(tmp_path, {"eu": eu, "us": us}, story)


def test_readings_of_a_dead_process_are_recovered_within_a_lease_and_a_quarter(tmp_path):
    """They wait for the lease, and at most for a quarter of another."""
    wire = Wire()

    async def story(seen: Seen) -> None:
        await seen.enqueue(1, "us")
        async with await Ledger.open(tmp_path / "ledger.db", clock=seen.clock) as dead:
            batch = await dead.batches.claim("us", limit=10)
            assert batch is not None
            await seen.at(LEASE_SECONDS - 10)
            assert seen.snapshot.workspaces[0].readings == {"leased": 1}
            await seen.at(1.25 * LEASE_SECONDS + 15)
            assert seen.snapshot.workspaces[0].readings == {}

    served(tmp_path, {"us": wire}, story)


def test_an_unusable_key_file_is_a_condition_and_the_previous_key_stays_in_use(tmp_path):
    """A half-written file halts nothing. It is logged once, and page and metrics show it."""
    file = tmp_path / "us.key"
    file.write_text(f"{KEY}-us")

    async def story(seen: Seen) -> None:
        file.write_text("")
        await seen.at(20)
        assert seen.snapshot.unready_reasons() == []
        assert 'The key file of workspace "us" cannot be used' in seen.page
        assert seen.metrics["harvester_condition", "file", "key", "us"] == 1
        await seen.at(500)
        assert [each["cause"] for each in seen.events("key_unusable")] == ["file"]
        file.write_text(f"{KEY}-us")
        assert (await seen.at(520)).conditions == ()
        assert len(seen.events("key_usable")) == 1

    served(tmp_path, {"us": Wire()}, story, key_file=file)


class Shelf(FolderSink):
    """A folder on a disk that is full while ``problem`` says so."""

    problem: SinkError | None = None

    async def create(self, part) -> None:
        """Take a part, or fail as the disk would."""
        if self.problem is not None:
            raise self.problem
        await super().create(part)


def test_an_unavailable_store_makes_the_process_unready_after_its_patience(tmp_path):
    """A short failure has no effect on readiness."""
    shelf = Shelf(tmp_path / "out")
    shelf.problem = SinkError("cannot write to out: No space left on device; free some space", cause="disk_full")

    async def story(seen: Seen) -> None:
        await seen.enqueue(10, "us")
        await seen.at(30)
        assert ([each.cause for each in seen.snapshot.conditions], seen.snapshot.unready_reasons()) == (
            ["disk_full"],
            [],
        )
        assert "Parts cannot be stored: cannot write to out: No space left on device" in seen.page
        assert seen.metrics["harvester_condition", "", "disk_full", "store"] == 1
        assert [each["cause"] for each in seen.events("store_unavailable")] == ["disk_full"]
        await seen.at(90)
        assert seen.snapshot.unready_reasons() == [f"Parts cannot be stored: {shelf.problem}"]
        shelf.problem = None
        assert (await seen.at(200)).unready_reasons() == []
        assert len(seen.events("store_recovered")) == 1

    served(tmp_path, {"us": Wire()}, story, sink=shelf)


class Queue:
    """A broker whose connection fails while ``problem`` says so; its queue is empty."""

    lease_seconds = None
    problem: BrokerError | None = None

    async def open(self) -> list[str]:
        """Connect."""
        if self.problem is not None:
            raise self.problem
        return []

    async def receive(self) -> Sequence[object]:
        """Give nothing, after a wait."""
        await asyncio.sleep(5)
        return await self.open()

    async def is_empty(self) -> bool:
        """It is."""
        return True

    async def dead_letter(self, delivery: object, body: bytes, reason: str) -> None:
        """Nothing comes that could be dead."""

    async def close(self) -> None:
        """Nothing to close."""


def test_an_unavailable_broker_is_a_condition_and_the_process_stays_ready(tmp_path):
    """Page, metrics and log show it, and the log at most every ten minutes."""
    queue = Queue()

    async def story(seen: Seen) -> None:
        parser = MessageParser(("us",), ())
        trigger = Trigger("sends", queue, parser=parser, enqueue=seen.service.enqueue, clock=seen.clock,
                          jitter=random.Random(1))  # fmt: skip
        seen.service.conditions.triggers.append(trigger)
        task = asyncio.create_task(trigger.run())
        assert (await seen.at(10)).conditions == ()
        queue.problem = BrokerError("RabbitMQ, queue sends: ConnectionRefusedError", cause="connection_refused")
        (condition,) = (await seen.at(60)).conditions
        assert condition.sentence == f'Trigger "sends" is not connected: {queue.problem}'
        assert seen.snapshot.unready_reasons() == []
        assert seen.metrics["harvester_condition", "broker", "connection_refused", "sends"] == 1
        await seen.at(700)
        assert [each["trigger"] for each in seen.events("broker_unavailable")] == ["sends"] * 2
        queue.problem = None
        await seen.at(900)
        assert len(seen.events("broker_recovered")) == 1
        trigger.stop()
        await task

    served(tmp_path, {"us": Wire()}, story)


async def test_a_hanging_ledger_is_reported_without_a_query(tmp_path):
    """Conditions come from memory, so a hanging disk does not delay them."""

    class Clock(VirtualClock):
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    settings = Settings(workspaces={"us": Workspace(endpoint=AT, api_key=SecretStr(KEY))})
    async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        harvesting = Harvesting(settings, ledger=ledger, sink=FolderSink(tmp_path / "out"),
                                compression=Compression.NONE, lasting=True)  # fmt: skip
        conditions = Conditions(harvesting=harvesting, triggers=[], ledger=ledger, clock=clock)
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        hanging = asyncio.create_task(ledger.upkeep.resume("us"))
        await asyncio.sleep(0)
        with structlog.testing.capture_logs() as logs:
            for clock.now in (0.0, 9.0, 12.0):
                conditions.report()
            (condition,) = conditions()
            assert (condition.component, condition.cause, condition.blocks) == (Component.LEDGER, "timeout", True)
            other.close()
            await hanging
            while conditions():
                await asyncio.sleep(0)
            conditions.report()
        assert [each["event"] for each in logs] == ["ledger_unavailable", "ledger_recovered"]
