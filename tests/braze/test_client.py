"""The policy around one exchange: what is tried again, deferred, refused, and what stops a whole workspace."""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
import structlog

from harvester.braze.budget import BudgetReport
from harvester.braze.client import Client
from harvester.braze.gate import FAILURES_TO_HOLD
from harvester.braze.pacer import Pacer
from harvester.braze.refusals import REFUSALS_TO_DOUBT, Trust
from harvester.braze.transport import Response
from harvester.engine.wiring import Harvesting
from harvester.errors import ExchangeError
from harvester.ledger import Ledger
from harvester.model import Captured, Deferred, Enqueued, Pair, Reading, Rejected, Returned, Verdict
from harvester.settings import Settings, Workspace
from harvester.signals import GRACE_SECONDS
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import Compression, FolderSink
from tests.support.ledger_file import query

KEY = "canary-key-0123456789"
AT = "https://rest.fra-01.braze.eu"
LEASED = "SELECT count(*) FROM pair WHERE state = 'leased'"
GOOD = orjson.dumps({"message": "success", "data": []})


class Script:
    """A wire that answers by a script: a status, a body of 200, or an error to raise. Notes when it was asked."""

    def __init__(self, steps: Iterable[int | bytes | Exception]) -> None:
        """Take the answers in order."""
        self.steps: Iterator[int | bytes | Exception] = iter(steps)
        self.times: list[float] = []

    @property
    def asked(self) -> int:
        """Tell how often it was asked."""
        return len(self.times)

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Answer as the script says."""
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        step = next(self.steps)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, bytes):
            return Response(status=200, body=step, budget=BudgetReport(), latency_seconds=0.05)
        body = (
            GOOD
            if step == 200
            else b"key=" + KEY.encode() * 50
            if step == 401
            else f"no\x1b[31m, {KEY} is not it".encode()
        )
        return Response(status=step, body=body, budget=BudgetReport(), latency_seconds=0.05)

    def scrub(self, text: str) -> str:
        """Take the key out."""
        return text.replace(KEY, "[key]")

    async def close(self) -> None:
        """Nothing to close."""


def reading(number: int = 1) -> Reading:
    """A reading that has time."""
    return Reading(number, Pair("w", "c", f"s{number}"), "once", 1e9, 1e12, 1e9)


def captured_by(steps: Iterable[int | bytes | Exception], readings: int = 1, *, together: int = 0):
    """Capture readings one after the other, and some more together; gives the outcomes, the wire and the client."""
    wire = Script(steps)

    async def capture() -> tuple:
        clock = VirtualClock()
        pacer = Pacer(
            reserve=0.2, max_rate=1000.0, clock=clock, jitter=random.Random(1), longest_wait_seconds=7200.0
        )  # fmt: skip
        client = Client(transport=wire, pacer=pacer, clock=clock, endpoint=AT)
        outcomes = [await client.capture(reading(number), batch_id="b") for number in range(readings)]
        at_once = (client.capture(reading(number), batch_id="b") for number in range(together))
        return [*outcomes, *await asyncio.gather(*at_once)], wire, client

    return run_virtual(capture())


def forever(step: int | ExchangeError) -> Iterator[int | ExchangeError]:
    """The same again and again."""
    while True:
        yield step


@pytest.mark.parametrize("failure", [500, 502, 408, 520, 302, 204, ExchangeError("timeout", "slow")])
def test_what_is_transient_is_tried_thrice_and_then_deferred(failure):
    """A passing failure costs three calls at the most, and the reading stays in the plan."""
    (outcome,), wire, _ = captured_by(forever(failure))
    assert isinstance(outcome, Deferred)
    assert wire.asked == 3


def test_a_failure_that_passes_is_a_capture():
    """The second or third try counts as much as the first."""
    (outcome,), wire, _ = captured_by([503, ExchangeError("disconnected", "gone"), 200])
    assert isinstance(outcome, Captured)
    assert outcome.verdict is Verdict.EMPTY
    assert wire.asked == 3


def test_a_429_costs_no_try():
    """A failure and five 429s later there still is a try left."""
    (outcome,), wire, _ = captured_by([503, 429, 429, 429, 429, 429, 200])
    assert isinstance(outcome, Captured)
    assert wire.asked == 7


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_a_refused_pair_is_rejected_at_once_with_its_reason(status):
    """Asking again would cost budget and change nothing; the detail is safe to show."""
    (outcome,), wire, _ = captured_by([status])
    assert outcome == Rejected(f"status_{status}", "no\\x1b[31m, [key] is not it")
    assert wire.asked == 1


@pytest.mark.parametrize("status", [401, 403, 415])
def test_a_refused_key_halts_and_the_reading_goes_back(status):
    """One call finds out; the reading is as it was, and the cause does not show the key."""
    (outcome,), wire, client = captured_by([status])
    assert outcome == Returned()
    assert wire.asked == 1
    assert str(status) in client.endpoint.halt.reason
    assert "canary" not in client.endpoint.halt.reason


def test_twenty_refusals_in_a_row_are_a_doubt_and_a_capture_starts_the_count_anew():
    """A wrong host refuses all; twenty wrong pairs among good ones, or of one campaign, do not look like that."""
    steps = [400] * (REFUSALS_TO_DOUBT - 1) + [200] + [400] * (REFUSALS_TO_DOUBT - 1)
    _, _, client = captured_by(steps, readings=len(steps))
    assert client.endpoint.refusals.trust is Trust.TRUSTED
    _, _, client = captured_by([400] * REFUSALS_TO_DOUBT, readings=REFUSALS_TO_DOUBT)
    assert client.endpoint.refusals.trust is Trust.DOUBTED
    assert client.endpoint.halt is None


def test_answers_that_come_together_are_judged_in_the_order_they_came():
    """A capture that came before a refused key, or between refused pairs, does not count as one that came after."""
    _, _, client = captured_by([*[200] * 64, 200, 401], readings=64, together=2)
    assert client.endpoint.halt is not None
    half = [404] * (REFUSALS_TO_DOUBT // 2)
    _, _, client = captured_by([*[200] * 64, *half, 200, *half], readings=64, together=REFUSALS_TO_DOUBT + 1)
    assert client.endpoint.refusals.trust is Trust.TRUSTED


def test_a_probe_whose_answer_is_unusable_is_not_followed_by_a_second_call():
    """Where every answer is an HTML page, each hold costs one call: the next one leaves when the probe is judged."""
    _, wire, _ = captured_by(forever(b"<html>"), together=8)
    probes = wire.times[FAILURES_TO_HOLD:]
    assert len(probes) > 3
    assert min(after - before for before, after in pairwise(probes)) > 10


def test_in_a_storm_the_wire_sees_few_more_calls_than_readings():
    """When everything fails, retries stop being granted: at most 1.2 calls a reading, and a few to begin with."""
    outcomes, wire, _ = captured_by(forever(503), readings=300)
    assert all(isinstance(outcome, Deferred) for outcome in outcomes)
    assert wire.asked <= 1.2 * 300 + 20


def test_stop_ends_the_pause_between_tries():
    """A reading that waits to be tried again goes back when the harvest stops."""

    async def stopped() -> tuple:
        clock = VirtualClock()
        pacer = Pacer(reserve=0.2, max_rate=1000.0, clock=clock, jitter=random.Random(1))
        client = Client(transport=Script(forever(503)), pacer=pacer, clock=clock, endpoint=AT)
        task = asyncio.create_task(client.capture(reading(), batch_id="b"))
        await asyncio.sleep(0.06)
        client.stop()
        return await task

    assert run_virtual(stopped()) == Returned()


def test_nothing_logged_holds_the_key_or_a_control_character():
    """Braze echoes the key in a 401; the log says what it said without it."""
    with structlog.testing.capture_logs() as logs:
        captured_by([401])
    assert logs
    assert KEY not in str(logs)
    assert not [value for each in logs for value in each.values() if "\x1b" in str(value)]


@pytest.mark.parametrize(("step", "event"), [(401, "workspace_halted"), (b"{}", "response_unusable")])
def test_what_is_logged_of_an_answer_names_its_send(step, event):
    """Workspace, campaign and send: enough to ask Braze about it."""
    with structlog.testing.capture_logs() as logs:
        captured_by([step] * 3)
    told = next(each for each in logs if each["event"] == event)
    assert (told["workspace"], told["campaign_id"], told["send_id"]) == ("w", "c", "s0")


def test_of_each_cause_the_first_unusable_answer_is_a_warning():
    """Hundreds of them flood no log; they stay counted, and are all there for who asks for more."""
    with structlog.testing.capture_logs() as logs:
        _, _, client = captured_by([b"{}", b"[", 200, b"{}", b"[", 200], readings=2)
    told = [(each["cause"], each["log_level"]) for each in logs if each["event"] == "response_unusable"]
    again = [("no_success", "debug"), ("unparsable", "debug")]
    assert told == [("no_success", "warning"), ("unparsable", "warning"), *again]
    assert (client.responses["no_success"], client.responses["unparsable"]) == (2, 2)


def harvested(
    folder: Path, count: int, wire_of: Callable[[Ledger, VirtualClock], Script], *, stopped_after: float | None = None
) -> tuple[float, int]:
    """Harvest so many pairs over a wire, to the end or a stop; gives the seconds that took and how many are pending."""

    async def story() -> tuple[float, int]:
        clock = VirtualClock()
        async with await Ledger.open(folder / "ledger.db", clock=clock) as ledger:
            wire = wire_of(ledger, clock)
            pairs = [Enqueued(Pair("eu", "c", f"s{number}")) for number in range(count)]
            await ledger.intake.enqueue(pairs, once=True)
            harvesting = Harvesting(
                Settings(workspaces={"eu": Workspace(endpoint=AT, api_key=KEY)}), ledger=ledger,
                sink=FolderSink(folder / "out"), compression=Compression.NONE, connect=lambda *_: wire,
            )  # fmt: skip
            async with harvesting.opened():
                if stopped_after is not None:
                    asyncio.get_running_loop().call_later(stopped_after, harvesting.stop)
                await harvesting.run()
            return clock.monotonic(), (await ledger.reports.get_books()).pending

    return run_virtual(story())


def test_an_endpoint_that_never_answers_is_named_and_given_up_within_a_minute(tmp_path):
    """Nobody waits for minutes where the address may be wrong; the pairs stay in the plan."""
    gone = Script(forever(ExchangeError("name_not_found", "")))

    with structlog.testing.capture_logs() as logs:
        seconds, pending = harvested(tmp_path, 50, lambda *_: gone)
    assert (pending, gone.asked < 10, seconds < 60) == (50, True, True)
    assert [
        each["event"] for each in logs if each["log_level"] != "debug" and each["event"] != "progress_reported"
    ] == []


def test_nothing_is_leased_beyond_a_small_batch_until_the_first_answer_tells_the_pace(tmp_path):
    """Where nobody answers yet a kill costs little; once the budget is known, what a minute can serve is leased."""
    leased: list[int] = []

    class Slow(Script):
        """Answers the first call late, and looks at each how much is leased."""

        async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
            """Answer well, and tell of a budget that is large."""
            await asyncio.sleep(0 if self.asked else 20)
            leased.append(query(self.ledger.path, LEASED)[0][0])
            answer = await super().send_series(pair, length_days=length_days, ending_at=ending_at)
            now = self.clock.wall()
            return answer._replace(budget=BudgetReport(250_000, 250_000 - self.asked, now + 1800, now))

    def slow(ledger: Ledger, clock: VirtualClock) -> Slow:
        wire = Slow(forever(200))
        wire.ledger, wire.clock = ledger, clock
        return wire

    assert harvested(tmp_path, 400, slow)[1] == 0
    assert (leased[0], max(leased) > 200) == (100, True)


def test_calls_that_hang_when_the_harvest_stops_cost_no_other_its_answer(tmp_path):
    """What was answered is sealed within seconds; only the calls that hang are made again by the next run."""

    class Hangs(Script):
        """Answers nine of ten."""

        async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
            """Answer, or don't."""
            if self.asked % 10 == 9:
                self.times.append(asyncio.get_running_loop().time())
                await asyncio.Event().wait()
            return await super().send_series(pair, length_days=length_days, ending_at=ending_at)

    hangs = Hangs(forever(200))
    seconds, pending = harvested(tmp_path, 100, lambda *_: hangs, stopped_after=30)
    assert seconds < 30 + GRACE_SECONDS / 2
    assert pending == 10

    wire = Script(forever(200))
    assert harvested(tmp_path, 100, lambda *_: wire)[1] == 0
    assert wire.asked == 10


def test_a_bug_of_ours_costs_one_pair_and_not_the_others():
    """An answer that nobody foresaw is deferred and told, without any value; the next pairs are captured."""
    with structlog.testing.capture_logs() as logs:
        outcomes, _, _ = captured_by([RuntimeError(KEY), 200, 200], readings=3)
    assert [type(outcome) for outcome in outcomes] == [Deferred, Captured, Captured]
    assert [(each["event"], each["error"]) for each in logs] == [("bug_found", "RuntimeError")]
    assert "harvester.braze.in_flight" in logs[0]["location"]
    assert KEY not in str(logs)


def test_an_answer_that_left_before_a_halt_does_not_end_it():
    """A key that is revoked is refused while calls of before still land: the run ends as halted, not as partial."""
    outcomes, _, client = captured_by([200, 403, 200], readings=1, together=2)
    assert [type(each) for each in outcomes] == [Captured, Returned, Captured]
    assert "403" in client.endpoint.halt.reason


def test_a_probe_that_is_answered_ends_a_halt():
    """It left after the halt, so that its answer tells of the key as it is now."""
    outcomes, _, client = captured_by([200, 403, 200, 200], readings=1, together=3)
    assert [type(each) for each in outcomes] == [Captured, Returned, Captured, Captured]
    assert client.endpoint.halt is None
