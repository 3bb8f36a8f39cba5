"""The stand-in API: it behaves as the documentation and the recordings of the real one say, and always the same way."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager
from datetime import date, timedelta

import aiohttp
import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.model import DAY_SECONDS, MAX_ID_CHARACTERS
from harvester.simulator import Simulator, SimulatorConfig, population
from harvester.simulator.budget import SharedBudget
from harvester.simulator.neighbour import Bursty, Campaign, Steady
from harvester.simulator.series import answer
from harvester.simulator.virtual_time import VirtualClock, run_virtual

KEY = "canary-key-0123456789"
NOW = 1_767_225_600.0 + 12 * 3600
ONE_LONG_WINDOW = 1e9  # its end is in 2033, so that no test meets it

fractions = st.floats(0.01, 1)
neighbours = st.one_of(
    st.builds(Steady, fractions),
    st.builds(Bursty, fractions, burst_seconds=st.floats(0.1, 30), every_seconds=st.floats(30, 600)),
    st.builds(Campaign, fractions, starts_at_fraction=st.floats(0, 0.99), lasts_fraction=fractions),
)


# The budget


@settings(deadline=None)
@given(limit=st.integers(0, 20), steps=st.lists(st.floats(0, 30), max_size=60))
def test_no_window_allows_more_than_the_limit_and_each_begins_full(limit, steps):
    """However the calls are spread, each clock-aligned window grants its limit and not one call more."""
    budget = SharedBudget(limit, 60.0)
    allowed: dict[float, int] = {}
    for now in itertools.accumulate(steps):
        grant = budget.take(now)
        assert now < grant.reset_at <= now + 60
        assert grant.reset_at % 60 == 0
        before = allowed.get(grant.reset_at, 0)
        assert grant.allowed == (before < limit)
        allowed[grant.reset_at] = before + grant.allowed
        assert grant.remaining == limit - allowed[grant.reset_at]
    assert budget.refused == len(steps) - sum(allowed.values())


def test_a_limit_that_changes_midway_holds_at_once():
    """Raised or lowered, the next answer tells the new limit; ``remaining`` never goes below 0."""
    budget = SharedBudget(10, 60.0)
    for _ in range(6):
        budget.take(0.0)
    budget.limit = 4
    assert not (lowered := budget.take(1.0)).allowed
    assert (lowered.limit, lowered.remaining) == (4, 0)
    budget.limit = 20
    assert (raised := budget.take(2.0)).allowed
    assert (raised.limit, raised.remaining) == (20, 13)


# The neighbours


@settings(deadline=None)
@given(neighbour=neighbours, limit=st.integers(0, 300_000), cuts=st.lists(st.floats(0, 3600)))
def test_a_neighbour_spends_the_same_however_often_it_is_asked(neighbour, limit, cuts):
    """Asked every 50 ms or once an hour, the calls add up: none is lost between two questions, none comes twice."""
    times = sorted([0.0, *cuts, 3600.0])
    due = [neighbour.calls_due(limit, 3600.0, since, until) for since, until in itertools.pairwise(times)]
    assert min(due) >= 0
    assert sum(due) == neighbour.calls_due(limit, 3600.0, 0.0, 3600.0) <= neighbour.share * limit


def test_neighbours_spend_when_they_say():
    """Steady traffic is even, bursts are bursts, and a late campaign is silent until it starts."""
    minutes = [(60.0 * minute, 60.0 * minute + 60) for minute in range(60)]

    def per_minute(neighbour):
        return [neighbour.calls_due(6000, 3600.0, *minute) for minute in minutes]

    assert per_minute(Steady(0.5)) == [50] * 60
    assert per_minute(Bursty(0.5, burst_seconds=60, every_seconds=600)) == ([500] + [0] * 9) * 6
    late = per_minute(Campaign(0.5, starts_at_fraction=0.75, lasts_fraction=0.25))
    assert late[:45] == [0] * 45
    assert late[45:] == pytest.approx([200] * 15, abs=1)
    assert sum(late) == 3000
    assert sum(per_minute(Campaign(0.5, starts_at_fraction=0.75, lasts_fraction=0.5))) == 1500


# Virtual time


def test_hours_of_waiting_pass_at_once_and_in_order():
    """A rehearsal of hours ends in milliseconds, and its timers fire in the order of their times."""

    async def wait():
        clock, woken = VirtualClock(starts_at=1000.0), []

        async def sleeper(seconds):
            await asyncio.sleep(seconds)
            woken.append((seconds, round(clock.monotonic(), 2), round(clock.wall() - 1000.0, 2)))

        await asyncio.gather(*(sleeper(hours * 3600.0) for hours in (5, 1, 48, 3)))
        return woken

    assert run_virtual(wait()) == [(hours * 3600.0,) * 3 for hours in (1, 3, 5, 48)]


def test_a_limiter_ends_and_keeps_its_rate():
    """A token bucket whose float arithmetic meets a tie still goes on, and takes the time it should."""

    async def drain():
        limiter = AsyncLimiter(7, 0.1)
        for _ in range(707):
            await limiter.acquire()
        return VirtualClock().monotonic()

    assert run_virtual(drain()) == pytest.approx(10.0, abs=0.01)


def test_what_would_wait_for_ever_is_told():
    """A rehearsal that is stuck ends with an error, and cleans up, where a real loop would hang."""
    cleaned = []

    async def stuck():
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("cleaned")

    with pytest.raises(RuntimeError, match="wait for ever"):
        run_virtual(stuck())
    assert cleaned == ["cleaned"]


# What exists, and what is answered


def test_the_population_is_the_same_every_time_and_awkward_enough():
    """Ids are unique, legal and of several shapes; all sends are young enough to be asked."""
    sends = list(population(seed=7, pairs=2000, now=NOW))
    assert sends == list(population(seed=7, pairs=2000, now=NOW))
    assert sends != list(population(seed=8, pairs=2000, now=NOW))
    assert len({each.pair for each in sends}) == 2000
    ids = [each.pair.send_id for each in sends]
    assert all(send_id.isascii() and 0 < len(send_id) <= MAX_ID_CHARACTERS for send_id in ids)
    assert any(send_id.isdigit() for send_id in ids)
    assert any("&" in send_id and "#" in send_id and "/" in send_id for send_id in ids)
    assert all(0 <= NOW - each.sent_at <= 13 * DAY_SECONDS + 1 for each in sends)


def asked(each, now=NOW, **given):
    """Give the answer for a send of the population at ``now``."""
    question = {"seed": 7, "campaign_id": each.pair.campaign_id, "send_id": each.pair.send_id,
                "sent_at": each.sent_at, "now": now, "length_days": 14, "ending_at": now}  # fmt: skip
    return answer(**question | given)


def counted(found):
    """All counters of an answer, added up."""
    return sum(
        value
        for day in found["data"]
        for variations in day["messages"].values()
        for variation in variations
        for value in variation.values()
        if not isinstance(value, str)
    )


def test_answers_have_activity_zeros_or_no_days():
    """All three verdicts occur, mostly activity, so that a demo shows them and books tell them apart."""
    found = [asked(each) for each in population(seed=7, pairs=1000, now=NOW)]
    empty = sum(not each["data"] for each in found)
    zero = sum(bool(each["data"]) and not counted(each) for each in found)
    assert 0 < empty < 100
    assert 0 < zero < 150
    assert all(each["message"] == "success" for each in found)
    assert len({tuple(each) for each in found}) == 2, "the message may stand first or last"


def test_days_are_consecutive_and_a_control_group_was_sent_nothing():
    """Days are filled with zeros without a gap; e-mail has a control group, which has ``enrolled`` but no ``sent``."""
    controls = 0
    for each in population(seed=7, pairs=100, now=NOW):
        found = asked(each)
        days = [date.fromisoformat(day["time"]) for day in found["data"]]
        assert days in ([], [days[-1] - timedelta(days=back) for back in range(13, -1, -1)] if days else [])
        for day in found["data"]:
            assert isinstance(day["revenue"], float)
            for variation in day["messages"].get("email", [])[1:]:
                controls += 1
                assert variation["variation_name"] == "Control Group"
                assert "enrolled" in variation
                assert "sent" not in variation
    assert controls


def test_late_conversions_change_days_past():
    """Asked again later, a past day holds more: reading once is not enough."""
    sends = [each for each in population(seed=7, pairs=200, now=NOW) if NOW - each.sent_at < 2 * DAY_SECONDS]

    def on_send_days(now):
        return [
            sum(day["conversions_by_send_time"] for day in asked(each, now, ending_at=NOW + 5 * DAY_SECONDS)["data"])
            for each in sends
        ]

    early, later = on_send_days(NOW), on_send_days(NOW + 5 * DAY_SECONDS)
    assert all(before <= after for before, after in zip(early, later, strict=True))
    assert sum(early) < sum(later)
    assert early == on_send_days(NOW)


def test_an_expired_send_answers_as_an_unknown_one():
    """14 days after the send nothing is left, and no error says so."""
    active = next(each for each in population(seed=7, pairs=100, now=NOW) if counted(asked(each)))
    assert counted(asked(active, active.sent_at + 14 * DAY_SECONDS))
    expired = active.sent_at + 14 * DAY_SECONDS + 1
    assert not counted(asked(active, expired))
    assert asked(active, expired) == asked(active, expired, sent_at=None)


# The API


@asynccontextmanager
async def serving(**config):
    """Run a stand-in and give it with a function that asks it, for its first pair unless told otherwise."""
    defaults = {"pairs": 50, "api_key": KEY, "window_seconds": ONE_LONG_WINDOW}
    async with Simulator(SimulatorConfig(**defaults | config)) as simulator, aiohttp.ClientSession() as session:
        pair = simulator.population[0].pair
        usual = {"campaign_id": pair.campaign_id, "send_id": pair.send_id, "length": "14"}

        async def ask(path="/sends/data_series", key=KEY, **query):
            given = {name: value for name, value in (usual | query).items() if value is not None}
            async with session.get(
                simulator.url + path,
                params=given,
                headers={"Authorization": f"Bearer {key}"},
                allow_redirects=False,
            ) as response:
                return response.status, response.headers, await response.read()

        yield simulator, ask


async def test_a_good_question_costs_one_call_and_every_answer_tells_the_budget():
    """Limit, remaining, reset, date and request id are on answers and on refusals of the question alike."""
    async with serving(limit=100) as (_, ask):
        for spent, query in enumerate(({}, {"length": "0"}, {"campaign_id": "nobody"}, {}), start=1):
            status, headers, body = await ask(**query)
            assert status == (400 if query else 200)
            assert isinstance(json.loads(body)["message"], str)
            assert headers["X-RateLimit-Limit"] == "100"
            assert headers["X-RateLimit-Remaining"] == str(100 - spent)
            assert headers["X-RateLimit-Reset"] == "2000000000"
            assert headers["Date"].endswith("GMT")
            assert headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"campaign_id": "nobody"}, "Invalid Campaign ID"),
        ({"campaign_id": None}, "Invalid Campaign ID"),
        ({"send_id": None}, "send_id"),
        ({"length": None}, "length"),
        ({"length": "0"}, "length"),
        ({"length": "101"}, "length"),
        ({"length": "ten"}, "length"),
        ({"length": "²"}, "length"),
        ({"length": "1" * 5000}, "length"),
        ({"ending_at": "yesterday"}, "ending_at"),
    ],
)
async def test_a_bad_question_is_refused_and_says_what_is_wrong(query, message):
    """Each documented parameter is checked, and the refusal names it."""
    async with serving() as (_, ask):
        status, _, body = await ask(**query)
        assert status == 400
        assert message in json.loads(body)["message"]


async def test_every_send_that_exists_can_be_asked_for():
    """Ids with URL-reserved characters arrive whole; the answers are those of the pure function."""
    async with serving() as (simulator, ask):
        for each in simulator.population:
            status, _, body = await ask(
                campaign_id=each.pair.campaign_id, send_id=each.pair.send_id, ending_at="2026-01-14T00:00:00Z"
            )
            assert status == 200
            assert json.loads(body)["message"] == "success"
        assert simulator.answers == {"200": 50}


async def test_a_wrong_key_is_refused_as_recorded():
    """401: the key comes back in the body, the budget's headers are there but empty, and no budget is spent."""
    async with serving(limit=10) as (simulator, ask):
        status, headers, body = await ask(key="wrong")
        assert status == 401
        assert json.loads(body) == {"message": "Invalid API key: wrong"}
        assert [headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")] == ["", "", ""]
        assert simulator.budget.lowest_remaining == 10


async def test_over_the_limit_is_429_until_the_reset():
    """The limit is the limit; refusals say when to come back and are counted."""
    async with serving(limit=3) as (simulator, ask):
        answers = [await ask() for _ in range(5)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
        assert answers[-1][1]["X-RateLimit-Remaining"] == "0"
        assert answers[-1][1]["X-RateLimit-Reset"] == "2000000000"
        assert simulator.answers == {"200": 3, "429": 2}
        assert simulator.budget.refused == 2


async def test_any_other_path_is_an_invalid_url():
    """A wrong path, a trailing slash included, is 404 with the observed body."""
    async with serving() as (_, ask):
        for path in ("/", "/sends/data_series/", "/campaigns/list"):
            status, _, body = await ask(path)
            assert (status, json.loads(body)) == (404, {"message": "Invalid URL"})


@pytest.mark.parametrize("status", [400, 404, 500, 502, 503, 504, 520])
async def test_a_send_id_can_ask_for_a_status(status):
    """``fault-503`` is met each time, ``fault-503x2`` twice and then never again."""
    async with serving() as (_, ask):
        assert [(await ask(send_id=f"a fault-{status} z"))[0] for _ in range(3)] == [status] * 3
        assert [(await ask(send_id=f"fault-{status}x2"))[0] for _ in range(3)] == [status, status, 200]


async def test_a_send_id_can_ask_for_an_answer_that_is_none():
    """Pages, other messages, redirects and 429s without headers: what a harvest must not take for data."""
    async with serving() as (_, ask):
        assert (await ask(send_id="fault-html"))[2].startswith(b"<html>")
        twice = [(await ask(send_id="fault-htmlx2"))[2] for _ in range(3)]
        assert [body.startswith(b"<html>") for body in twice] == [True, True, False]
        assert json.loads((await ask(send_id="fault-nosuccess"))[2])["message"] != "success"
        status, headers, _ = await ask(send_id="fault-redirect")
        assert status == 302
        assert "127.0.0.1" not in headers["Location"]
        status, headers, _ = await ask(send_id="fault-429")
        assert status == 429
        assert "X-RateLimit-Reset" not in headers


async def test_a_send_id_can_ask_for_a_broken_connection():
    """Nothing at all, or less than was promised: both reach the client as errors of the network."""
    async with serving() as (_, ask):
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(send_id="fault-reset")
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(send_id="fault-truncated")


async def test_faults_by_rate_are_the_same_in_every_run():
    """A rehearsal with faults can be repeated: the same calls in the same order meet the same faults."""

    async def told():
        async with serving(fault_rate=0.3, seed=3) as (_, ask):
            statuses = []
            for _ in range(60):
                try:
                    statuses.append((await ask())[0])
                except aiohttp.ClientError as error:
                    statuses.append(type(error).__name__)
            return statuses

    first = await told()
    assert first == await told()
    assert 5 < sum(each != 200 for each in first) < 30


async def test_each_answer_is_in_the_log_and_the_key_is_not(tmp_path):
    """An outside verdict can be made after a kill: one whole line for each answer, flushed, without the key."""
    log = tmp_path / "answers.ndjson"
    async with serving(log=log) as (simulator, ask):
        await ask(send_id="fault-503")
        await ask(key="wrong")
        await ask(send_id="a\nb&c")
        lines = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
        assert [(line["status"], line["fault"]) for line in lines] == [(503, "503"), (401, None), (200, None)]
        assert lines[2]["send_id"] == "a\nb&c"
        assert simulator.answers.total() == len(lines)
    assert KEY.encode() not in log.read_bytes()
    assert b"wrong" not in log.read_bytes()
