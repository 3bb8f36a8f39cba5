"""The policy around one request: retries, deferrals, refusals, and what halts a workspace."""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
import structlog

from harvester.braze.client import Client
from harvester.braze.gate import FAILURES_TO_HOLD
from harvester.braze.pacer import Pacer
from harvester.braze.quota import QuotaReport
from harvester.braze.refusals import REFUSALS_TO_DOUBT, Trust
from harvester.braze.slots import Slots
from harvester.braze.transport import Response
from harvester.engine.engine import Engine
from harvester.errors import ExchangeError
from harvester.ledger import Ledger
from harvester.model import Captured, Deferred, Outcome, Pair, Reading, Rejected, Released, SentPair, Verdict
from harvester.settings import Settings, Workspace
from harvester.signals import GRACE_SECONDS
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import Compression, FolderSink
from tests.support.ledger_file import query

KEY = "canary-key-0123456789"
AT = "https://rest.fra-01.braze.eu"
LEASED = "SELECT count(*) FROM pair WHERE state = 'leased'"
GOOD = orjson.dumps({"message": "success", "data": []})


class ScriptedTransport:
    """A transport that follows a script: a status, a body of 200, or an error to raise. It records request times."""

    def __init__(self, steps: Iterable[int | bytes | Exception]) -> None:
        """Use the responses in order."""
        self.steps: Iterator[int | bytes | Exception] = iter(steps)
        self.times: list[float] = []

    @property
    def request_count(self) -> int:
        """Return the number of requests."""
        return len(self.times)

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Respond as the script says."""
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        step = next(self.steps)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, bytes):
            return Response(status=200, body=step, quota=QuotaReport(), latency_seconds=0.05)
        body = (
            GOOD
            if step == 200
            else b"key=" + KEY.encode() * 50
            if step == 401
            else f"no\x1b[31m, {KEY} is not it".encode()
        )
        return Response(status=step, body=body, quota=QuotaReport(), latency_seconds=0.05)

    def scrub(self, text: str) -> str:
        """Remove the key."""
        return text.replace(KEY, "[key]")

    async def close(self) -> None:
        """Nothing to close."""


def reading(number: int = 1) -> Reading:
    """Return a reading with a distant deadline."""
    return Reading(number, Pair("w", "c", f"s{number}"), "once", 1e9, 1e12, 1e9)


def capture_all(steps: Iterable[int | bytes | Exception], readings: int = 1, *, concurrent: int = 0):
    """Capture readings one after the other, then ``concurrent`` ones; return outcomes, transport and client."""
    transport = ScriptedTransport(steps)

    async def capture() -> tuple:
        clock = VirtualClock()
        pacer = Pacer(
            reserve=0.2, max_rate=1000.0, clock=clock, jitter=random.Random(1), longest_wait_seconds=7200.0
        )  # fmt: skip
        client = Client(transport=transport, pacer=pacer, clock=clock, endpoint=AT)
        outcomes = [await client.capture(reading(number), get_batch_id=lambda: "b") for number in range(readings)]
        at_once = (client.capture(reading(number), get_batch_id=lambda: "b") for number in range(concurrent))
        return [*outcomes, *await asyncio.gather(*at_once)], transport, client

    return run_virtual(capture())


def repeat(step: int | ExchangeError) -> Iterator[int | ExchangeError]:
    """Repeat one step."""
    while True:
        yield step


@pytest.mark.parametrize("failure", [500, 502, 408, 520, 302, 204, ExchangeError("timeout", "slow")])
def test_a_transient_failure_is_attempted_three_times_and_then_deferred(failure):
    """A transient failure costs at most three requests, and the reading stays pending."""
    (outcome,), transport, _ = capture_all(repeat(failure))
    assert isinstance(outcome, Deferred)
    assert transport.request_count == 3


def test_a_later_attempt_that_succeeds_is_a_capture():
    """A second or third attempt that succeeds is a capture like a first one."""
    (outcome,), transport, _ = capture_all([503, ExchangeError("disconnected", "gone"), 200])
    assert isinstance(outcome, Captured)
    assert outcome.verdict is Verdict.EMPTY
    assert transport.request_count == 3


def test_a_429_costs_no_attempt():
    """After a failure and five 429s, one attempt is left."""
    (outcome,), transport, _ = capture_all([503, 429, 429, 429, 429, 429, 200])
    assert isinstance(outcome, Captured)
    assert transport.request_count == 7


def test_no_attempt_is_made_without_permission():
    """Permission is asked before each attempt. Without it, the reading is released, and later ones are not delayed."""
    transport, permissions = ScriptedTransport([503, 200]), iter([True, False])

    async def capture() -> list[Outcome]:
        clock = VirtualClock()
        pacer = Pacer(reserve=0.2, max_rate=1000.0, clock=clock, jitter=random.Random(1))
        client = Client(transport=transport, pacer=pacer, clock=clock, endpoint=AT, slots=Slots(1, clock))
        lost = await client.capture(reading(1), get_batch_id=lambda: "b", permit=lambda: next(permissions))
        return [lost, await client.capture(reading(2), get_batch_id=lambda: "b")]

    lost, captured = run_virtual(capture())
    assert (lost, type(captured), transport.request_count) == (Released(), Captured, 2)


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_a_refused_pair_is_rejected_at_once_with_its_reason(status):
    """A refused pair is rejected without a retry, and its detail contains no secret."""
    (outcome,), transport, _ = capture_all([status])
    assert outcome == Rejected(f"status_{status}", "no\\x1b[31m, [key] is not it")
    assert transport.request_count == 1


@pytest.mark.parametrize("status", [401, 403, 415])
def test_a_refused_key_halts_the_workspace_and_the_reading_is_released(status):
    """One refused request halts the workspace. The reading is unchanged, and the reason does not contain the key."""
    (outcome,), transport, client = capture_all([status])
    assert outcome == Released()
    assert transport.request_count == 1
    assert str(status) in client.endpoint.halt.reason
    assert "canary" not in client.endpoint.halt.reason


def test_twenty_refusals_in_a_row_are_a_doubt_and_a_capture_resets_the_count():
    """Twenty refusals in a row put the endpoint in doubt; wrong pairs among good ones, or of one campaign, do not."""
    steps = [400] * (REFUSALS_TO_DOUBT - 1) + [200] + [400] * (REFUSALS_TO_DOUBT - 1)
    _, _, client = capture_all(steps, readings=len(steps))
    assert client.endpoint.refusals.trust is Trust.TRUSTED
    _, _, client = capture_all([400] * REFUSALS_TO_DOUBT, readings=REFUSALS_TO_DOUBT)
    assert client.endpoint.refusals.trust is Trust.DOUBTED
    assert client.endpoint.halt is None


def test_responses_that_arrive_together_are_processed_in_order():
    """A capture before a refused key, or between refused pairs, does not count as a later one."""
    _, _, client = capture_all([*[200] * 64, 200, 401], readings=64, concurrent=2)
    assert client.endpoint.halt is not None
    half = [404] * (REFUSALS_TO_DOUBT // 2)
    _, _, client = capture_all([*[200] * 64, *half, 200, *half], readings=64, concurrent=REFUSALS_TO_DOUBT + 1)
    assert client.endpoint.refusals.trust is Trust.TRUSTED


def test_no_second_request_follows_a_probe_whose_response_is_unusable():
    """If every response is an HTML page, each hold costs one request: the next waits until the probe is parsed."""
    _, transport, _ = capture_all(repeat(b"<html>"), concurrent=8)
    probes = transport.times[FAILURES_TO_HOLD:]
    assert len(probes) > 3
    assert min(after - before for before, after in pairwise(probes)) > 10


def test_if_everything_fails_there_are_few_more_requests_than_readings():
    """Retries are limited: at most 1.2 requests per reading, and a few at the start."""
    outcomes, transport, _ = capture_all(repeat(503), readings=300)
    assert all(isinstance(outcome, Deferred) for outcome in outcomes)
    assert transport.request_count <= 1.2 * 300 + 20


def test_a_stop_ends_the_wait_between_attempts():
    """A stop releases a reading that waits for its next attempt."""

    async def stopped() -> tuple:
        clock = VirtualClock()
        pacer = Pacer(reserve=0.2, max_rate=1000.0, clock=clock, jitter=random.Random(1))
        client = Client(transport=ScriptedTransport(repeat(503)), pacer=pacer, clock=clock, endpoint=AT)
        task = asyncio.create_task(client.capture(reading(), get_batch_id=lambda: "b"))
        await asyncio.sleep(0.06)
        client.stop()
        return await task

    assert run_virtual(stopped()) == Released()


def test_no_log_line_contains_the_key_or_a_control_character():
    """Braze echoes the key in a 401; the log quotes the response without it."""
    with structlog.testing.capture_logs() as logs:
        capture_all([401])
    assert logs
    assert KEY not in str(logs)
    assert not [value for each in logs for value in each.values() if "\x1b" in str(value)]


@pytest.mark.parametrize(("step", "event"), [(401, "workspace_halted"), (b"{}", "response_unusable")])
def test_log_lines_about_a_response_name_its_send(step, event):
    """A log line names the workspace, campaign and send, so that you can ask Braze about the response."""
    with structlog.testing.capture_logs() as logs:
        capture_all([step] * 3)
    logged = next(each for each in logs if each["event"] == event)
    assert (logged["workspace"], logged["campaign_id"], logged["send_id"]) == ("w", "c", "s0")


def test_only_the_first_unusable_response_of_each_cause_is_a_warning():
    """Hundreds of unusable responses do not flood the log: all but the first of each cause are at debug level."""
    with structlog.testing.capture_logs() as logs:
        _, _, client = capture_all([b"{}", b"[", 200, b"{}", b"[", 200], readings=2)
    logged = [(each["cause"], each["log_level"]) for each in logs if each["event"] == "response_unusable"]
    repeated = [("no_success", "debug"), ("unparsable", "debug")]
    assert logged == [("no_success", "warning"), ("unparsable", "warning"), *repeated]
    assert (client.counters.responses["no_success"], client.counters.responses["unparsable"]) == (2, 2)


def run_capture(
    folder: Path,
    count: int,
    make_transport: Callable[[Ledger, VirtualClock], ScriptedTransport],
    *,
    stopped_after: float | None = None,
) -> tuple[float, int]:
    """Capture ``count`` pairs, to the end or a stop; return the seconds and the number of pending pairs."""

    async def story() -> tuple[float, int]:
        clock = VirtualClock()
        async with await Ledger.open(folder / "ledger.db", clock=clock) as ledger:
            transport = make_transport(ledger, clock)
            pairs = [SentPair(Pair("eu", "c", f"s{number}")) for number in range(count)]
            await ledger.intake.enqueue(pairs, once=True)
            engine = Engine(
                Settings(workspaces={"eu": Workspace(endpoint=AT, api_key=KEY)}), ledger=ledger,
                sink=FolderSink(folder / "out"), compression=Compression.NONE, connect=lambda *_: transport,
            )  # fmt: skip
            async with engine.opened():
                if stopped_after is not None:
                    asyncio.get_running_loop().call_later(stopped_after, engine.stop)
                await engine.run()
            return clock.monotonic(), (await ledger.reports.get_books()).pending

    return run_virtual(story())


def test_a_run_ends_within_a_minute_if_the_endpoint_never_responds(tmp_path):
    """A run with a wrong address ends within a minute, and its pairs stay pending."""
    gone = ScriptedTransport(repeat(ExchangeError("name_not_found", "")))

    with structlog.testing.capture_logs() as logs:
        seconds, pending = run_capture(tmp_path, 50, lambda *_: gone)
    assert (pending, gone.request_count < 10, seconds < 60) == (50, True, True)
    assert [
        each["event"] for each in logs if each["log_level"] != "debug" and each["event"] != "progress_reported"
    ] == []


def test_only_a_small_batch_is_leased_before_the_first_response(tmp_path):
    """Before the first response a kill costs little; once the quota is known, readings for five seconds are leased."""
    leased: list[int] = []

    class Slow(ScriptedTransport):
        """Responds late to the first request, and records at each one how many readings are leased."""

        async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
            """Respond with a large quota."""
            await asyncio.sleep(0 if self.request_count else 20)
            leased.append(query(self.ledger.location, LEASED)[0][0])
            response = await super().send_series(pair, length_days=length_days, ending_at=ending_at)
            now = self.clock.wall()
            return response._replace(quota=QuotaReport(250_000, 250_000 - self.request_count, now + 1800, now))

    def slow(ledger: Ledger, clock: VirtualClock) -> Slow:
        transport = Slow(repeat(200))
        transport.ledger, transport.clock = ledger, clock
        return transport

    assert run_capture(tmp_path, 400, slow)[1] == 0
    assert (leased[0], max(leased) > 200) == (100, True)


def test_requests_that_hang_on_a_stop_do_not_delay_the_others(tmp_path):
    """Captured readings are sealed within seconds; the next run repeats only the requests that hang."""

    class Hangs(ScriptedTransport):
        """Responds to nine of ten requests."""

        async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
            """Respond, or hang."""
            if self.request_count % 10 == 9:
                self.times.append(asyncio.get_running_loop().time())
                await asyncio.Event().wait()
            return await super().send_series(pair, length_days=length_days, ending_at=ending_at)

    hangs = Hangs(repeat(200))
    seconds, pending = run_capture(tmp_path, 100, lambda *_: hangs, stopped_after=30)
    assert seconds < 30 + GRACE_SECONDS / 2
    assert pending == 10

    transport = ScriptedTransport(repeat(200))
    assert run_capture(tmp_path, 100, lambda *_: transport)[1] == 0
    assert transport.request_count == 10


def test_a_bug_of_ours_defers_only_its_own_reading():
    """An unexpected exception is logged without any value; the next pairs are captured."""
    with structlog.testing.capture_logs() as logs:
        outcomes, _, _ = capture_all([RuntimeError(KEY), 200, 200], readings=3)
    assert [type(outcome) for outcome in outcomes] == [Deferred, Captured, Captured]
    assert [(each["event"], each["error"]) for each in logs] == [("bug_found", "RuntimeError")]
    assert "harvester.braze.in_flight" in logs[0]["location"]
    assert KEY not in str(logs)


def test_a_response_to_a_request_sent_before_a_halt_does_not_end_it():
    """A key is revoked while earlier requests still succeed: the run ends as halted, not as partial."""
    outcomes, _, client = capture_all([200, 403, 200], readings=1, concurrent=2)
    assert [type(each) for each in outcomes] == [Captured, Released, Captured]
    assert "403" in client.endpoint.halt.reason


def test_a_probe_that_succeeds_ends_a_halt():
    """The success of a request that was sent after the halt shows that the key works again."""
    outcomes, _, client = capture_all([200, 403, 200, 200], readings=1, concurrent=3)
    assert [type(each) for each in outcomes] == [Captured, Released, Captured, Captured]
    assert client.endpoint.halt is None
