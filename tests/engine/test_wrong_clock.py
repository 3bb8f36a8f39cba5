"""A machine with a wrong clock: Braze's time decides what is requested and what expires."""

import asyncio
import math
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from harvester.books import Books
from harvester.braze.quota import QuotaReport
from harvester.braze.transport import Response
from harvester.cli.output import clock_line, format_time
from harvester.clock import MAX_MOVES, Bounds, BrazeClock, format_difference
from harvester.commands.capture import Run
from harvester.commands.summary import Summary
from harvester.engine.engine import Engine
from harvester.engine.periodic_work import HOUSEKEEPING_SECONDS
from harvester.engine.time_check import TimeCheck
from harvester.engine.workspaces import Workspaces
from harvester.errors import ExchangeError
from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.model import Batch, Captured, Deferred, Pair, ReadingOutcome, SentPair, Verdict
from harvester.schedule import ReadingPlan
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.sources import Input, RejectsFile
from harvester.storage import Compression, FolderSink
from tests.support.ledger_file import query

KEY = "canary-key-0123456789"
AT = "https://rest.fra-01.braze.eu"
GOOD = orjson.dumps({"message": "success", "data": []})
START = VirtualClock().starts_at
HOUR, DAY = 3600.0, 86_400.0
APART = [3 * DAY, -3 * DAY, 20 * DAY, -20 * DAY, 2 * HOUR, -2 * HOUR]


class Machine(VirtualClock):
    """A machine's clock that is ``ahead`` by seconds, and may jump. Virtual time is Braze's time."""

    def __init__(self, ahead: float = 0.0) -> None:
        """Begin ``ahead``."""
        super().__init__()
        self.ahead = ahead

    def wall(self) -> float:
        """Return the wrong time."""
        return super().wall() + self.ahead


class Braze:
    """A transport that responds with the ``Date`` of virtual time or by a script, and records each request."""

    def __init__(self, steps: Iterable[object] = (), *, dated: bool = True) -> None:
        """Respond by ``script`` first: statuses, seconds by which a ``Date`` is wrong, or errors."""
        self.steps, self.dated = iter(steps), dated
        self.requests: list[tuple[str, float]] = []

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Respond after a delay."""
        now = START + asyncio.get_running_loop().time()
        self.requests.append((pair.send_id, ending_at - now))
        await asyncio.sleep(0.05)
        step = next(self.steps, 200)
        if isinstance(step, Exception):
            raise step
        status, wrong = (step, 0.0) if isinstance(step, int) else (200, step)
        date = math.floor(now) + wrong if self.dated else None
        return Response(status, GOOD, QuotaReport(250_000, 249_000, START + HOUR, date), 0.05)

    def scrub(self, text: str) -> str:
        """Return the text."""
        return text

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def open_harvest(folder: Path, machine: Machine, wire: Braze, *, until_stopped: bool = False):
    """Open a ledger and the engine of one process."""
    settings = Settings(workspaces={"eu": Workspace(endpoint=AT, api_key=KEY)})
    async with await Ledger.open(folder / "ledger.db", clock=machine) as ledger:
        engine = Engine(
            settings, ledger=ledger, sink=FolderSink(folder / "out"), compression=Compression.NONE,
            until_stopped=until_stopped, connect=lambda *_: wire,
        )  # fmt: skip
        async with engine.opened():
            yield ledger, engine


def sends(*ages_days: float) -> list[SentPair]:
    """Return sends of these ages, in days."""
    return [SentPair(Pair("eu", "c", f"s{number}"), START - days * DAY) for number, days in enumerate(ages_days)]


def run_harvest(
    folder: Path, ahead: float, arrivals: list[SentPair], wire: Braze, jump: Callable[[Machine], None] | None = None
) -> tuple[Books, dict[str, int]]:
    """Run once on a machine whose clock is ``ahead``; return the books, and the requests by cause."""

    async def story() -> tuple[Books, dict[str, int]]:
        machine = Machine(ahead)
        async with open_harvest(folder, machine, wire) as (ledger, engine):
            await ledger.intake.enqueue(arrivals, once=True)
            if jump is not None:
                asyncio.get_running_loop().call_later(0.3, jump, machine)
            await engine.run()
            await ledger.save_clock_difference()
            return await ledger.reports.get_books(), dict(engine.workspaces.get_counters("eu").requests)

    return run_virtual(story())


@pytest.mark.parametrize("ahead", [0.0, *APART])
def test_requests_end_at_brazes_time_although_the_machines_clock_is_wrong(tmp_path, ahead):
    """A request that was made with the wrong time is repeated, so that no day is missing. Nothing expires."""
    wire = Braze()
    totals, requests = run_harvest(tmp_path, ahead, sends(*(number % 13 for number in range(110))), wire)
    assert (sum(totals.captured.values()), totals.expired, totals.pending) == (110, 0, 0)
    last_requests = dict(wire.requests)
    assert all(abs(seconds) < 120 for seconds in last_requests.values())
    assert len(last_requests) == 110
    assert sum(requests.values()) == 110 + (ahead != 0)


def test_a_clock_jump_during_a_run_changes_nothing(tmp_path):
    """After a response has confirmed the time, a jump of the wall clock has no effect."""
    for number, ahead in enumerate((-3 * DAY, 20 * DAY)):
        wire = Braze()
        totals, requests = run_harvest(
            tmp_path / str(number),
            0.0,
            sends(*([1.0] * 120)),
            wire,
            lambda machine, by=ahead: setattr(machine, "ahead", by),
        )
        assert (sum(totals.captured.values()), requests) == (120, {"first": 120})
        assert all(abs(seconds) < 120 for _, seconds in wire.requests)


@pytest.mark.parametrize(
    ("status", "ahead"), [*((status, 0.0) for status in (200, 400, 401, 429, 500)), (200, 20 * DAY), (401, -3 * DAY)]
)
def test_pairs_expire_after_any_response_confirms_the_time(tmp_path, status, ahead):
    """The ``Date`` of one response confirms the time, even if the response captures, rejects and halts nothing."""
    wire = Braze([status] * 3)
    totals, requests = run_harvest(tmp_path, ahead, sends(20, 21, 22), wire)
    assert (totals.expired, totals.pending, sum(totals.captured.values())) == (3, 0, 0)
    assert requests == {"for_the_time": 2 if ahead else 1}


def test_nothing_expires_while_the_time_is_unconfirmed(tmp_path):
    """Without responses, or without a ``Date``, the pairs stay pending and the run ends."""
    for name, wire in (("gone", Braze([ExchangeError("dns", "no such host")] * 99)), ("undated", Braze(dated=False))):
        totals, requests = run_harvest(tmp_path / name, 0.0, sends(16, 17), wire)
        assert (totals.expired, totals.pending, list(requests)) == (0, 2, ["for_the_time"])
        assert len(wire.requests) < 10


def test_contradicting_dates_do_not_prevent_captures(tmp_path):
    """Random dates repeat a few requests, but not forever."""
    wire = Braze([(number * 7919) % 40 * DAY for number in range(5000)])
    totals, requests = run_harvest(tmp_path, 0.0, sends(*([1.0] * 110)), wire)
    assert sum(totals.captured.values()) == 110
    assert sum(requests.values()) < 170


def test_a_single_wrong_date_does_not_move_the_clock(tmp_path):
    """The request with the wrong ``Date`` is repeated, whether it is the first or a later one."""
    for number, steps in enumerate(([9.5 * DAY], [200] * 50 + [-9.5 * DAY])):
        wire = Braze(steps)
        totals, requests = run_harvest(tmp_path / str(number), 0.0, sends(*([1.0] * 120)), wire)
        assert (sum(totals.captured.values()), totals.expired) == (120, 0)
        assert sum(requests.values()) <= 123
        assert all(abs(seconds) < 120 for seconds in dict(wire.requests).values())


def test_pairs_that_a_wrong_clock_expired_are_reopened(tmp_path):
    """The next run repairs a ledger of an earlier version, with one request for the time."""

    async def hurt() -> None:
        async with await Ledger.open(tmp_path / "ledger.db", clock=Machine(30 * DAY)) as ledger:
            await ledger.intake.enqueue(sends(1, 5, 16), once=True)
            assert await ledger.upkeep.expire(["eu"], trust_clock=True) == 3

    run_virtual(hurt())
    wire = Braze()
    with structlog.testing.capture_logs() as logs:
        totals, requests = run_harvest(tmp_path, 0.0, [], wire)
    assert (sum(totals.captured.values()), totals.expired) == (2, 1)
    assert requests == {"for_the_time": 1, "first": 2}
    assert [each["pairs"] for each in logs if each["event"] == "pairs_reopened"] == [2]


def test_the_next_process_uses_the_stored_difference_until_the_clock_is_set(tmp_path):
    """The stored difference costs no request, and is not used after the clock was set."""
    run_harvest(tmp_path, 3 * DAY, sends(1.0), Braze())
    totals, requests = run_harvest(tmp_path, 3 * DAY, sends(1, 2, 3), Braze())
    assert (totals.pending, requests) == (0, {"first": 2})

    async def seen(ahead: float) -> float:
        async with await Ledger.open(tmp_path / "ledger.db", clock=Machine(ahead)) as ledger:
            known = ledger.clock_difference
            assert known is None if ahead == 0 else abs(known.seconds - ahead) < 1
            return ledger.clock.wall() - START

    assert abs(run_virtual(seen(3 * DAY))) < 2
    assert abs(run_virtual(seen(0.0))) < 2


def run_list(folder: Path, ahead: float, lines: list[str], wire: Braze) -> Summary:
    """Run ``harvester run`` with a list of lines."""
    (folder / "p.csv").write_text("\n".join(["campaign_id,send_id,sent_at", *lines]))

    async def story() -> Summary:
        settings = Settings(workspaces={"eu": Workspace(endpoint=AT, api_key=KEY)})
        async with await Ledger.open(folder / "ledger.db", clock=Machine(ahead)) as ledger:
            job = Run(
                settings, ledger=ledger, sink=FolderSink(folder / "out"), compression=Compression.NONE,
                connect=lambda *_: wire,
            )  # fmt: skip
            now = ledger.clock.wall()
            listed = Input([str(folder / "p.csv")], workspaces=["eu"], stdin=BytesIO(), now=now, confirmed=False)
            return await job.capture(listed, RejectsFile(folder / "rejects.ndjson"))

    return run_virtual(story())


@pytest.mark.parametrize("ahead", [0.0, -3 * DAY, 20 * DAY])
def test_times_of_a_list_are_compared_with_brazes_time(tmp_path, ahead):
    """A send of next month is a bad line, and a send of today is not. The summary shows the wrong clock."""
    lines = ["c,of-december,2025-12-20", "c,of-today,2026-01-01", "c,of-next-month,2026-01-25"]
    with structlog.testing.capture_logs() as logs:
        done = run_list(tmp_path, ahead, lines, Braze())
    assert (sum(done.books.captured.values()), done.bad_lines, done.exit_code) == (2, 1, 3)
    assert "of-next-month" in (tmp_path / "rejects.ndjson").read_text()
    assert abs(done.clock_difference_seconds - ahead) < 2
    problem = {-3 * DAY: "3 days behind Braze's", 20 * DAY: "20 days ahead of Braze's"}
    assert done.clock_problem == (
        f"this machine's clock is {problem[ahead]}; harvester uses Braze's time, but set the clock" if ahead else None
    )
    warned = [(each["cause"], each["log_level"]) for each in logs if each["event"] == "clock_wrong"]
    assert warned == ([("ahead" if ahead > 0 else "behind", "warning")] if ahead else [])


@pytest.mark.parametrize(("ahead", "passed"), [(40 * DAY, 0.0), (0.0, 40 * DAY)])
def test_a_list_without_times_starts_new_rounds_only_at_a_confirmed_time(tmp_path, ahead, passed):
    """A list that is run again weeks later names new sends, but not on a machine whose clock is weeks ahead."""
    run_list(tmp_path, 0.0, ["c,s,", "c,t,"], Braze())
    done = run_list(tmp_path, ahead + passed, ["c,s,", "c,t,"], Braze([passed] * 9))
    assert done.requests["for_the_time"] == (2 if ahead else 1)
    assert done.requests["first"] == (0 if ahead else 2)
    assert (sum(done.books.captured.values()), done.exit_code) == (2, 0)
    dead = run_list(tmp_path, ahead + passed + 80 * DAY, ["c,s,", "c,t,"], Braze([ExchangeError("dns", "")] * 9))
    assert (sum(dead.books.captured.values()), dead.retention_unconfirmed, dead.exit_code) == (2, True, 3)


def test_a_list_that_was_read_with_a_late_clock_is_not_read_again(tmp_path):
    """The retention of a pair that was captured today begins today, although the clock was weeks late."""
    run_list(tmp_path, -40 * DAY, ["c,s,"], Braze())
    done = run_list(tmp_path, 0.0, ["c,s,"], Braze())
    assert (sum(done.books.captured.values()), done.requests["first"], done.exit_code) == (1, 0, 0)


def test_a_summary_counts_pairs_that_wait_for_a_confirmed_time(tmp_path):
    """Pairs that seem expired count as pending, and the exit code is 3."""
    done = run_list(tmp_path, 0.0, ["c,old,2020-01-01"], Braze(dated=False))
    assert (done.books.pending, done.books.expired, done.in_question, done.exit_code) == (1, 0, 1, 3)


@pytest.mark.parametrize(
    "ahead", [-3 * DAY, *(pytest.param(each, marks=pytest.mark.long) for each in (3 * DAY, 90 * DAY))]
)
def test_a_service_follows_its_plan_on_a_machine_whose_clock_is_wrong(tmp_path, monkeypatch, ahead):
    """A service on a machine with a wrong clock makes each reading at its time, with the right name."""
    monkeypatch.setattr("harvester.engine.dispatcher.POLL_SECONDS", 600.0)

    async def story() -> list[tuple[str, float]]:
        machine, wire = Machine(ahead), Braze()
        async with await Ledger.open(tmp_path / "ledger.db", clock=Machine()) as ledger:
            await ledger.intake.set_plan("eu", ReadingPlan((0.01, 0.05, 0.1)))
            await ledger.intake.enqueue(sends(0.005, 0.02, 0.06))
        async with open_harvest(tmp_path, machine, wire, until_stopped=True) as (ledger, engine):
            asyncio.get_running_loop().call_later(0.11 * DAY, engine.stop)
            await engine.run()
            rows = query(ledger.location, READ)
        return [(send_id, reading, (ended_at - START + age * DAY) / DAY) for send_id, reading, ended_at, age in rows]

    read = run_virtual(story())
    assert [(send_id, reading) for send_id, reading, _ in read] == PLANNED
    assert all(age >= {"d0.01": 0.01, "d0.05": 0.05, "final": 0.1}[reading] for _, reading, age in read)


READ = """SELECT send_id, outcome.reading, ended_at, CASE send_id WHEN 's0' THEN 0.005 WHEN 's1' THEN 0.02 ELSE 0.06 END
          FROM outcome JOIN pair ON pair.id = pair_id ORDER BY send_id, outcome.id"""
PLANNED = [
    ("s0", "d0.01"), ("s0", "d0.05"), ("s0", "final"), ("s1", "d0.01"), ("s1", "d0.05"), ("s1", "final"),
    ("s2", "d0.05"), ("s2", "final"),
]  # fmt: skip


def test_a_machine_that_slept_requests_the_time_after_its_clock_jumped(tmp_path):
    """The monotonic clock may stop while a machine sleeps. Readings must not stay late."""

    async def story() -> list[tuple[str, float]]:
        machine, wire = Machine(), SleepingMachineBraze()
        async with open_harvest(tmp_path, machine, wire, until_stopped=True) as (ledger, engine):
            await ledger.intake.set_plan("eu", ReadingPlan((1.0, 13.0)))
            await ledger.intake.enqueue([*sends(2.0, 0.0)])
            loop = asyncio.get_running_loop()
            loop.call_later(60.0, wire.sleep, machine, 13.2 * DAY)
            loop.call_later(120.0, engine.stop)
            await engine.run()
            totals = await ledger.reports.get_books()
        return totals, wire.requests

    totals, requests = run_virtual(story())
    assert (sum(totals.captured.values()), totals.expired, totals.pending) == (1, 1, 0)
    assert [send_id for send_id, _ in requests] == ["s0", "s0", "s1"]


class SleepingMachineBraze(Braze):
    """A transport of a machine that sleeps while Braze's time advances."""

    seconds = 0.0

    def sleep(self, machine: Machine, seconds: float) -> None:
        """Sleep for ``seconds``, and set the machine's clock afterwards."""
        self.seconds = machine.ahead = seconds

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Respond with the true time."""
        answer = await super().send_series(pair, length_days=length_days, ending_at=ending_at)
        return answer._replace(quota=QuotaReport(server_time=answer.quota.server_time + self.seconds))


def test_a_first_seen_time_in_the_future_is_corrected(tmp_path):
    """A send without a time, enqueued by a clock that was ahead, gets its whole plan from now on."""

    async def story() -> tuple[int, tuple[float, ...]]:
        machine = Machine(20 * DAY)
        async with await Ledger.open(tmp_path / "ledger.db", clock=machine) as ledger:
            await ledger.intake.set_plan("eu", ReadingPlan((1.0, 13.0)))
            await ledger.intake.enqueue([SentPair(Pair("eu", "c", "s"))])
            machine.ahead = 0.0
            await ledger.upkeep.correct_times(["eu"])
            (row,) = query(ledger.location, "SELECT first_seen_at, expires_at, due_at FROM pair")
        return tuple(each - START for each in row)

    assert run_virtual(story()) == pytest.approx((0.0, 15 * DAY, 0.0), abs=0.001)


def test_a_service_corrects_what_another_process_with_a_wrong_clock_enqueued(tmp_path):
    """That process ended before it learned the time. Otherwise the send's last readings would be too late."""

    async def story() -> float:
        async with open_harvest(tmp_path, Machine(), Braze(), until_stopped=True) as (ledger, engine):
            await ledger.intake.set_plan("eu", ReadingPlan((1.0, 13.0)))
            await ledger.intake.enqueue(sends(2.0))  # its response confirms the time
            running = asyncio.create_task(engine.run())
            await asyncio.sleep(60)
            async with await Ledger.open(tmp_path / "ledger.db", clock=Machine(20 * DAY)) as other:
                await other.intake.enqueue([SentPair(Pair("eu", "c", "s"))])
            await asyncio.sleep(HOUSEKEEPING_SECONDS + LEASE_SECONDS)
            engine.stop()
            await running
            ((due_at,),) = query(ledger.location, "SELECT due_at FROM pair WHERE send_id = 's'")
        return due_at - START

    assert DAY < run_virtual(story()) < 1.05 * DAY


@pytest.mark.parametrize(("ahead", "leased"), [(3 * DAY, False), (3 * DAY, True), (20 * DAY, False)])
def test_a_send_enqueued_by_a_clock_that_was_ahead_keeps_its_plan(tmp_path, ahead, leased):
    """The clock made its readings seem overdue; after the correction, the first one falls due at its age.

    So does one that is leased meanwhile, and released because its request was void.
    """

    async def story() -> list[tuple[str, str, float]]:
        machine = Machine(ahead)
        async with await Ledger.open(tmp_path / "ledger.db", clock=machine) as ledger:
            await ledger.intake.set_plan("eu", ReadingPlan((1.0, 5.0, 13.0)))
            await ledger.intake.enqueue(sends(0.0))
            readings = await ledger.batches.claim({"eu": 1}) if leased else []
            machine.ahead = 0.0
            await ledger.upkeep.correct_times(["eu"])
            await ledger.batches.release(readings)
            ((reading, state, due_at),) = query(ledger.location, "SELECT reading, state, due_at FROM pair")
        return reading, state, due_at - START

    reading, state, due_at = run_virtual(story())
    assert (reading, state) == ("d1", "waiting")
    assert DAY <= due_at <= DAY + HOUR


@pytest.mark.parametrize("claims", [0, 1, 2])
def test_a_reading_deferred_by_a_clock_that_was_ahead_is_due_at_once(tmp_path, claims):
    """It is due whether it waited, was due or was leased when the clock was corrected."""

    async def story() -> int:
        machine = Machine(3 * DAY)
        async with await Ledger.open(tmp_path / "ledger.db", clock=machine) as ledger:
            await ledger.intake.set_plan("eu", ReadingPlan((1.0, 13.0)))
            await ledger.intake.enqueue(sends(0.0))
            (reading,) = await ledger.batches.claim({"eu": 1})
            deferred = ReadingOutcome(reading, Deferred("status_500"))
            assert await ledger.batches.seal([(Batch.open(START), [deferred], [])])
            machine.ahead += HOUR
            held = []
            if claims > 0:
                await ledger.upkeep.schedule_due(["eu"])
            if claims > 1:
                held = await ledger.batches.claim({"eu": 1})
            machine.ahead = 0.0
            await ledger.upkeep.correct_times(["eu"])
            await ledger.batches.release(held)
            await ledger.upkeep.schedule_due(["eu"])
            return len(await ledger.batches.claim({"eu": 1}))

    assert run_virtual(story()) == 1


def test_a_workspace_that_is_removed_while_its_pair_is_found_ends_nothing(tmp_path):
    """The time is then not requested of it. Otherwise, a reload at the wrong moment would end the service."""

    async def story() -> bool:
        machine = Machine(20 * DAY)
        async with await Ledger.open(tmp_path / "ledger.db", clock=machine) as ledger:
            await ledger.intake.set_plan("eu", ReadingPlan((1.0, 13.0)))
            await ledger.intake.enqueue(sends(0.0))
            assert await ledger.upkeep.find_time_probe(["eu"]) is not None
            workspaces = Workspaces(Settings(workspaces={"us": Workspace(endpoint=AT, api_key=KEY)}), ledger.clock)
            return await TimeCheck(ledger).request_time_if_needed(["eu"], workspaces.find_client)

    assert run_virtual(story()) is False


def test_a_first_seen_time_corrected_during_a_lease_moves_the_next_reading(tmp_path):
    """The next reading falls due by the corrected time, not by the time of the claim."""

    async def story() -> float:
        machine = Machine(20 * DAY)
        async with await Ledger.open(tmp_path / "ledger.db", clock=machine) as ledger:
            await ledger.intake.set_plan("eu", ReadingPlan((1.0, 13.0)))
            await ledger.intake.enqueue([SentPair(Pair("eu", "c", "s"))])
            readings = await ledger.batches.claim({"eu": 1})
            machine.ahead = 0.0
            await ledger.upkeep.correct_times(["eu"])
            ended = [ReadingOutcome(each, Captured(Verdict.ZERO, START, b"", 1)) for each in readings]
            assert await ledger.batches.seal([(Batch.open(START), ended, [])])
            ((due_at,),) = query(ledger.location, "SELECT due_at FROM pair")
        return due_at - START

    assert DAY <= run_virtual(story()) <= DAY + 3600


class ManualClock:
    """A machine's clock that tests move."""

    def __init__(self, wall: float, monotonic: float = 1000.0) -> None:
        """Begin at these times."""
        self.now, self.ticks = wall, monotonic

    def wall(self) -> float:
        """Return the machine's time."""
        return self.now

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return self.ticks


@given(
    offset=st.floats(-1e9, 1e9), wrong=st.sampled_from([0.0, 0.5, -59.0, 61.5, -1e5, 1e7]),
    trips=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5), st.floats(0, 1)), min_size=2, max_size=20),
)  # fmt: skip
def test_the_error_of_the_time_is_at_most_a_round_trip_and_a_second(offset, wrong, trips):
    """The property holds for all clocks and delays: the time lies within the bounds of the responses."""
    machine = ManualClock(offset + 1000.0 + wrong)
    clock = BrazeClock(machine)
    for pause, trip, when in trips:
        sent = machine.ticks + pause
        machine.ticks, machine.now = sent + trip, machine.now + pause + trip
        clock.observe(math.floor(offset + sent + when * trip), sent=sent, received=machine.ticks)
    longest = max(trip for _, trip, _ in trips)
    assert clock.confirmed
    assert abs(clock.wall() - (offset + machine.ticks)) <= longest + 1.001
    assert abs(clock.difference - wrong) <= longest + 1.001
    assert clock.moves == (abs(wrong) > 61.5 + longest) or abs(wrong) < 70 + longest


def test_the_machines_time_is_used_while_it_agrees_with_the_responses():
    """If the machine's clock is right, a ``Date`` in whole seconds does not make the time less exact."""
    machine = ManualClock(5000.4)
    clock = BrazeClock(machine)
    clock.observe(5000.0, sent=999.9, received=1000.1)
    assert (clock.confirmed, clock.wall(), clock.difference) == (True, 5000.4, 0.0)


def test_the_time_is_corrected_rarely_after_a_few_corrections():
    """Responses with contradicting dates correct the time a few times, and then rarely."""
    machine = ManualClock(5000.0)
    clock = BrazeClock(machine)
    for number in range(400):
        clock.observe(5000.0 + number // 2 % 2 * DAY, sent=machine.ticks, received=machine.ticks + 0.1)
    assert clock.moves <= MAX_MOVES
    machine.ticks += HOUR
    for _ in range(2):
        clock.observe(9 * DAY, sent=machine.ticks, received=machine.ticks)
    assert abs(clock.wall() - 9 * DAY) < 2


def test_bounds_narrow_and_newer_ones_replace_contradicting_ones():
    """The bounds follow a clock that drifts by seconds in months."""
    assert Bounds.from_date(100.0, received=10.0, sent=9.5) == (90.0, 91.5)
    assert Bounds(90.0, 91.5).intersect(Bounds(89.8, 90.4)) == (90.0, 90.4)
    assert Bounds(90.0, 91.5).intersect(Bounds(93.0, 94.0)) == (93.0, 94.0)


def test_a_difference_in_words_has_one_unit_and_a_direction():
    """A difference is shown in days, hours or seconds, with its direction."""
    assert format_difference(-3 * DAY) == "3 days behind Braze's"
    assert format_difference(2.5 * HOUR) == "2.5 hours ahead of Braze's"
    assert format_difference(90.0) == "90 seconds ahead of Braze's"


async def test_a_comparison_is_outdated_after_the_clock_was_set(tmp_path):
    """``status`` shows when the clocks were compared, and that the comparison is outdated."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=Machine()) as ledger:
        assert "not compared" in clock_line(ledger.clock_difference or ledger.outdated_difference, ledger.location)
        now = ledger.clock.monotonic()
        ledger.clock.observe(ledger.clock.wall(), sent=now, received=now)
        await ledger.save_clock_difference()
        measured_at = ledger.clock_difference.measured_at
    async with await Ledger.open(tmp_path / "ledger.db", clock=Machine(-3 * DAY)) as ledger:
        assert ledger.clock_difference is None
        assert ledger.outdated_difference.current_seconds is None
        line = clock_line(ledger.outdated_difference, ledger.location)
    assert f"last compared with Braze's at {format_time(measured_at)}, but this machine's clock was set since" in line


def test_a_wrong_endpoint_ends_no_pair_of_another_workspace(tmp_path):
    """A wrong ``Date`` of one endpoint expires no pair of another workspace, whose own endpoint must agree."""
    wires = {"key-of-eu-0123": Braze(), "key-of-us-0123": Braze([20 * DAY] * 100)}
    settings = Settings(workspaces={
        name: Workspace(endpoint=AT, api_key=key) for name, key in zip(("eu", "us"), wires, strict=True)
    })  # fmt: skip

    async def story() -> None:
        async with await Ledger.open(tmp_path / "ledger.db", clock=Machine()) as ledger:
            engine = Engine(
                settings, ledger=ledger, sink=FolderSink(tmp_path / "out"), compression=Compression.NONE,
                until_stopped=True, connect=lambda _workspace, key, *_: wires[key],
            )  # fmt: skip
            async with engine.opened():
                running = asyncio.create_task(engine.run())
                us = [SentPair(Pair("us", "c", f"u{number}"), START - 2.1 * DAY) for number in range(3)]
                await ledger.intake.enqueue(us, once=True)
                engine.wake(["us"])
                await asyncio.sleep(8)
                assert ledger.clock.wall() > START + 19 * DAY, "the wrong endpoint has moved the time"
                await ledger.intake.enqueue(sends(2.1, 2.2))
                engine.wake(["eu"])
                await asyncio.sleep(1500)
                books = (await ledger.reports.get_books_by_workspace())["eu"]
                assert (books.expired, sum(books.captured.values())) == (0, 2)
                engine.stop()
                await running

    run_virtual(story())
