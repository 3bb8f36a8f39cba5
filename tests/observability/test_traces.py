"""Tests of traces: which spans a collector receives, and that a process works without a collector."""

import asyncio
import random
import sys

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from harvester.clock import BrazeClock, SystemClock
from harvester.errors import LedgerError
from harvester.ledger import EnqueueResult
from harvester.observability.traces import NO_SPAN, begin_span, record_spans, send_traces_to
from harvester.simulator import Simulator, SimulatorConfig
from harvester.sources.brokers import Delivery
from harvester.sources.messages.message import MessageParser
from harvester.sources.messages.trigger import Trigger
from tests.commands.test_capture import write_pairs
from tests.support.secret_canary import KEY


class Collector:
    """A collector of OTLP over HTTP, which stores the spans that it receives."""

    def __init__(self) -> None:
        """Start without spans."""
        self.bodies: list[bytes] = []
        self.headers: list[str | None] = []

    async def receive(self, request: web.Request) -> web.Response:
        """Store an export."""
        self.bodies.append(await request.read())
        self.headers.append(request.headers.get("authorization"))
        return web.Response()

    def list_spans(self):
        """Yield all spans, each with its attributes as a dict of texts and numbers."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - it takes a while
            ExportTraceServiceRequest,
        )

        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        values = {each.key: each.value for each in span.attributes}
                        yield span, {key: value.string_value or value.int_value for key, value in values.items()}


@pytest.fixture
async def collector():
    """A collector that listens at ``url``."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = "http://{}:{}".format(*runner.addresses[0])
    yield collector
    await runner.cleanup()


async def test_a_collector_receives_each_batch_and_capture_without_the_key(harvester, tmp_path, collector):
    """Each batch is a trace, and each reading is a span with its attempts. No span contains the key."""
    harvester.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    harvester.env["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization={KEY}"
    async with Simulator(SimulatorConfig(pairs=30, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator, (simulator.population[0].pair.campaign_id, "fault-503x2"))
        code, out, err = await harvester.run("run", "pairs.csv", "--endpoint", simulator.url)
    assert (code, KEY in out + err) == (0, False), err
    spans = list(collector.list_spans())
    batches = {span.span_id: attributes for span, attributes in spans if span.name == "batch"}
    captures = [(span, attributes) for span, attributes in spans if span.name == "capture"]
    assert len(captures) == sum(each["readings"] for each in batches.values()) == 31
    assert {attributes["state"] for attributes in batches.values()} == {"stored"}
    assert all(span.parent_span_id in batches for span, _ in captures)
    assert all(attributes["outcome"] == "captured" for _, attributes in captures)
    [retried] = [attributes for _, attributes in captures if attributes["send_id"] == "fault-503x2"]
    assert (retried["attempts"], retried["status"], retried["reading"]) == (3, "status_200", "once")
    assert set(collector.headers) == {KEY}
    assert not any(KEY.encode() in body for body in collector.bodies)


async def test_an_unavailable_collector_costs_only_spans(harvester, tmp_path, unused_tcp_port):
    """The run succeeds, and the log says that the traces failed."""
    harvester.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{unused_tcp_port}"}
    async with Simulator(SimulatorConfig(pairs=5, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        code, _, err = await harvester.run("run", "pairs.csv", "--endpoint", simulator.url)
    assert code == 0
    assert "traces_failed" in err
    assert "Traceback" not in err


class OneMessageBroker:
    """A broker with one message, then none."""

    lease_seconds = None

    def __init__(self) -> None:
        """Start with one message."""
        self.messages = [Delivery(b'{"version": 1, "campaign_id": "c", "send_id": "s"}', 1, None)]

    async def open(self) -> list[str]:
        """Connect."""
        return []

    async def receive(self) -> list[Delivery]:
        """Return the message until it is acknowledged."""
        return list(self.messages)

    async def is_empty(self) -> bool:
        """Call ``on_empty``, and return whether the message is acknowledged."""
        self.on_empty()
        return not self.messages

    async def acknowledge(self, deliveries) -> None:
        """Remove the message."""
        self.messages.clear()

    async def dead_letter(self, delivery, body, reason) -> None:
        """Fail, because the message is valid."""
        raise AssertionError(reason)

    async def close(self) -> None:
        """Disconnect."""


async def test_each_batch_of_messages_is_a_span():
    """The span has the number of messages with each outcome. If the ledger fails, it has no outcome."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415 - it takes a while
        InMemorySpanExporter,
    )

    failures, broker = [LedgerError("disk I/O error")], OneMessageBroker()

    async def enqueue(arrivals, *, once):
        if failures:
            raise failures.pop()
        return EnqueueResult(new=len(arrivals), known=0)

    trigger = Trigger(
        "sends",
        broker,
        parser=MessageParser(("default",), ()),
        enqueue=enqueue,
        clock=BrazeClock(SystemClock()),
        jitter=random.Random(1),
        wait_first_seconds=0.001,
    )
    with record_spans(exporter := InMemorySpanExporter()):
        async with asyncio.timeout(10):
            broker.on_empty = trigger.stop
            await trigger.run()
    attributes = [dict(span.attributes) for span in exporter.get_finished_spans()]
    failed = {"trigger": "sends", "messages": 1}
    # The message is handled again after the failure, and a third time when it is delivered again.
    assert attributes == [failed, failed | {"enqueued": 1}, failed | {"enqueued": 1}]


def test_an_endpoint_without_the_extra_is_a_warning(monkeypatch):
    """The warning contains the command that installs the library."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with capture_logs() as logs, send_traces_to("http://127.0.0.1:4318"):
        assert begin_span("batch") is NO_SPAN
    assert [each["event"] for each in logs] == ["traces_disabled"]
    assert "pip install -c locks/constraints.txt -e '.[otel]'" in logs[0]["hint"]


def test_without_an_endpoint_nothing_is_recorded():
    """By default there are no traces: a span and its children record nothing."""
    with send_traces_to(None):
        assert begin_span("batch") is NO_SPAN
        assert begin_span("batch").child("capture", send_id="s") is NO_SPAN
