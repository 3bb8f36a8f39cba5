"""The stand-in API: it behaves as the documentation and the recordings of the real one say, and always the same way."""

import asyncio
import itertools
import json
import signal
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, MAX_ID_CHARACTERS, Verdict
from harvester.simulator import Simulator, SimulatorConfig, population
from harvester.simulator.budget import SharedBudget
from harvester.simulator.fast_clock import FastClock
from harvester.simulator.faults import FAULTS
from harvester.simulator.neighbour import Bursty, Campaign, Steady, neighbour_of
from harvester.simulator.request import BadQuestion, question
from harvester.simulator.series import answer
from harvester.simulator.virtual_time import VirtualClock, run_virtual

KEY = "canary-key-0123456789"
TODAY = date(2026, 1, 14)
MIDNIGHT = datetime(2026, 1, 14, tzinfo=UTC).timestamp()
NOW = MIDNIGHT + 12 * 3600
BUDGET_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class HandClock:
    """A clock that the test moves."""

    def __init__(self, now=NOW):
        """Stand at ``now``."""
        self.now = now

    def wall(self):
        """UTC seconds since the epoch."""
        return self.now

    def monotonic(self):
        """Seconds, for intervals."""
        return self.now


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


def test_a_clock_that_is_set_back_refills_nothing():
    """Time that has passed does not come again: the window of the later time stays, and so does what it gave away."""
    budget = SharedBudget(2, 60.0)
    assert [budget.take(now).remaining for now in (60.0, 59.0, 0.0)] == [1, 0, 0]
    assert budget.refused == 1


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


@settings(deadline=None)
@given(neighbour=neighbours, times=st.lists(st.floats(0, 3599), min_size=1, max_size=40))
def test_the_neighbour_takes_the_same_however_often_we_call(neighbour, times):
    """What is left for us depends on the clock and on our own calls, not on when these woke the stand-in up."""
    budget = SharedBudget(1000, 3600.0, neighbour)
    grants = [budget.take(now) for now in sorted(times)]
    ours = sum(grant.allowed for grant in grants)
    assert grants[-1].remaining == max(0, 1000 - ours - neighbour.calls_due(1000, 3600.0, 0.0, max(times)))


def test_a_neighbour_that_finds_nothing_left_is_counted():
    """The harm a greedy harvest does to live sending is a number: the calls that others were refused."""
    budget = SharedBudget(100, 3600.0, Campaign(0.5, starts_at_fraction=0.5, lasts_fraction=0.5))
    assert sum(budget.take(60.0).allowed for _ in range(80)) == 80
    budget.pass_time(3600.0)
    assert (budget.neighbour_refused, budget.neighbour_calls) == (30, 50)
    assert (budget.refused, budget.lowest_remaining) == (0, 0)
    assert budget.take(3600.0).remaining == 99


def test_each_kind_of_neighbour_spends_its_share():
    """The kinds that can be named spend the share that was named, by the end of every window."""
    for kind in ("steady", "bursty", "campaign"):
        assert neighbour_of(kind, 0.3, 600.0).calls_due(1000, 600.0, 0.0, 600.0) == pytest.approx(300, abs=1)
    assert neighbour_of("none", 0.3, 600.0) is None
    assert neighbour_of("steady", 0.0, 600.0) is None
    for kind, share in (("bursty", 0.0), ("noisy", 0.3)):
        with pytest.raises(UsageError, match=kind):
            neighbour_of(kind, share, 600.0)


# Time


def test_a_fast_clock_starts_now_and_runs_ahead():
    """Two weeks of retention pass in two hours at a speed of 168, from the true time on."""
    clock = HandClock()
    fast = FastClock(clock, 168.0)
    assert fast.wall() == NOW
    clock.now += 7200
    assert fast.wall() == NOW + 14 * DAY_SECONDS


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


# What exists


def test_the_sends_are_the_same_every_time_and_awkward_enough():
    """Ids are unique, legal and of several shapes; all were sent in the 13 days before the day, however late it is."""
    sends = list(population(seed=7, pairs=2000, day=TODAY))
    assert sends == list(population(seed=7, pairs=2000, day=TODAY))
    assert {each.pair for each in sends}.isdisjoint(each.pair for each in population(seed=8, pairs=2000, day=TODAY))
    assert len({each.pair for each in sends}) == 2000
    ids = [each.pair.send_id for each in sends]
    assert all(send_id.isascii() and 0 < len(send_id) <= MAX_ID_CHARACTERS for send_id in ids)
    assert any(send_id.isdigit() for send_id in ids)
    for character in "&#/?+% =.":
        assert any(character in send_id for send_id in ids)
    assert all(0 <= MIDNIGHT - each.sent_at <= 13 * DAY_SECONDS for each in sends)


def test_a_list_written_once_stays_good():
    """Started later that day, or on another day that is told the first, the same sends have the same times."""
    first = Simulator(SimulatorConfig(pairs=60), HandClock(MIDNIGHT + 1))
    later = Simulator(SimulatorConfig(pairs=60), HandClock(MIDNIGHT + 86_399))
    days_later = Simulator(SimulatorConfig(pairs=60, day=TODAY), HandClock(NOW + 9 * DAY_SECONDS))
    assert first.population == later.population == days_later.population
    assert first.day == TODAY


# What is asked


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["campaign_id", "send_id", "length", "ending_at"]), st.text()))
def test_no_question_is_too_odd(query):
    """Whatever a client sends is a question or a 400, never an error of ours."""
    try:
        asked = question(query, NOW)
    except BadQuestion:
        return
    assert 1 <= asked.length_days <= asked.last_day


@pytest.mark.parametrize(
    ("ending_at", "last_day"),
    [
        (None, "2026-01-14"),
        ("2026-01-10T00:00:00Z", "2026-01-09"),
        ("2026-01-10T00:00:01Z", "2026-01-10"),
        ("2026-01-09T23:59:59-05:00", "2026-01-10"),
        ("2026-01-10T04:00:00+05:00", "2026-01-09"),
        ("2026-01-10T12:00:00", "2026-01-10"),
        ("2026-01-10", "2026-01-09"),
        ("9999-12-31T23:59:59Z", "9999-12-31"),
    ],
)
def test_the_series_ends_with_the_day_before_ending_at_is_reached(ending_at, last_day):
    """A midnight leaves its own day out, as recorded; offsets count; no offset is UTC."""
    query = {"campaign_id": "c", "send_id": "s", "length": "1"} | ({"ending_at": ending_at} if ending_at else {})
    assert date.fromordinal(question(query, NOW).last_day).isoformat() == last_day


@pytest.mark.parametrize(
    "ending_at",
    ["", "yesterday", "1e9", "0001-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-12:00",
     "2026-01-10T00:00:00 05:00"],
)  # fmt: skip
def test_an_odd_ending_at_is_a_bad_question(ending_at):
    """What is no ISO 8601 datetime, or leads out of the calendar, is refused by name."""
    with pytest.raises(BadQuestion, match="ending_at"):
        question({"campaign_id": "c", "send_id": "s", "length": "100", "ending_at": ending_at}, NOW)


# What is answered


def asked(each, now=NOW, *, ending_at=None, length=14, sent_at=..., unknown_pairs="zero"):
    """Give verdict and answer for a send of the population at ``now``."""
    ending = datetime.fromtimestamp(now if ending_at is None else ending_at, UTC).isoformat()
    query = {"campaign_id": each.pair.campaign_id, "send_id": each.pair.send_id, "length": str(length)}
    verdict, body = answer(
        question(query | {"ending_at": ending}, now),
        seed=7, sent_at=each.sent_at if sent_at is ... else sent_at, now=now, unknown_pairs=unknown_pairs,
    )  # fmt: skip
    return verdict, json.loads(body)


def numbers(found):
    """All counters of an answer, in the order of their days: date, where it stands, name, value."""
    for day in found["data"]:
        for name, value in day.items():
            if name not in ("time", "messages"):
                yield day["time"], "day", name, value
        for channel, variations in day["messages"].items():
            for variation in variations:
                for name, value in variation.items():
                    if name != "variation_name":
                        yield day["time"], (channel, variation["variation_name"]), name, value


def sends_of(pairs=300):
    """The sends that the tests look at."""
    return list(population(seed=7, pairs=pairs, day=TODAY))


def test_the_verdict_is_what_a_reader_finds():
    """All three verdicts occur, mostly activity; each is true of the very bytes, whatever days were asked for."""
    verdicts = Counter()
    for each, length in itertools.product(sends_of(1000), (1, 14)):
        verdict, found = asked(each, length=length)
        true = Verdict.ACTIVITY if any(value for *_, value in numbers(found)) else Verdict.ZERO
        assert verdict == (true if found["data"] else Verdict.EMPTY)
        assert found["message"] == "success"
        if length == 14:
            verdicts[verdict] += 1
    assert verdicts[Verdict.ACTIVITY] > 850
    assert min(verdicts[Verdict.ZERO], verdicts[Verdict.EMPTY]) > 5


def test_every_documented_channel_occurs_under_its_own_name():
    """Variations have a name, e-mail may have a control group that was sent nothing, revenue is a float."""
    channels, control = set(), 0
    for each in sends_of(2000):
        for _, place, name, value in numbers(asked(each, length=1)[1]):
            assert isinstance(value, float if name == "revenue" else int)
            if place != "day":
                channels.add(place[0])
            if place == ("email", "Control Group"):
                control += name == "enrolled"
                assert name != "sent"
    assert channels == {
        "email", "ios_push", "android_push", "web_push", "sms", "whats_app", "content_cards", "webhook",
    }  # fmt: skip
    assert control


@pytest.mark.parametrize("length", [1, 14, 100])
def test_days_are_consecutive_and_filled_with_zeros(length):
    """As many days as were asked for, without a gap, each with every channel and counter, as recorded."""
    for each in sends_of(100):
        _, found = asked(each, length=length)
        if found["data"]:
            days = [date.fromisoformat(day["time"]) for day in found["data"]]
            assert days == [TODAY - timedelta(days=back) for back in range(length - 1, -1, -1)]
            names = [[(place, name) for _, place, name, _ in numbers({"data": [day]})] for day in found["data"]]
            assert names == [names[0]] * length


def test_nothing_happens_before_the_send_or_after_now():
    """Days before the send are zeros, and so are days to come; the send's own day has all that was sent."""
    for each in sends_of():
        verdict, found = asked(each, ending_at=NOW + 5 * DAY_SECONDS, length=30)
        sent_on = datetime.fromtimestamp(each.sent_at, UTC).date().isoformat()
        busy = {day for day, *_, value in numbers(found) if value}
        assert busy <= {day["time"] for day in found["data"] if sent_on <= day["time"] <= TODAY.isoformat()}
        assert {day for day, _, name, value in numbers(found) if name == "sent" and value} <= {sent_on}
        assert (sent_on in busy) == (verdict == Verdict.ACTIVITY)


def test_late_conversions_change_a_past_day():
    """The day of the send tells of all conversions so far, whenever they came: reading it once is too early."""
    grown = 0
    for each in sends_of():
        totals = []
        for age_days in (1, 3, 13):
            _, found = asked(each, each.sent_at + age_days * DAY_SECONDS, length=20)
            by_day = sum(value for _, place, name, value in numbers(found) if (place, name) == ("day", "conversions"))
            by_send = [value for _, place, name, value in numbers(found)
                       if (place, name) == ("day", "conversions_by_send_time") and value]  # fmt: skip
            assert by_send == ([by_day] if by_day else [])
            totals.append(by_day)
        assert totals == sorted(totals)
        grown += totals[-1] > totals[0]
    assert grown > 200


def test_counters_never_fall_until_the_send_expires():
    """While the clock goes on every number of every day stays or grows; within an hour it stays."""
    for each in sends_of(60):
        before = None
        for hours in range(1, 14 * 24, 17):
            now = each.sent_at + hours * 3600
            found = asked(each, now, ending_at=each.sent_at + 14 * DAY_SECONDS, length=16)[1]
            values = [value for *_, value in numbers(found)]
            assert before is None or all(old <= new for old, new in zip(before, values, strict=True))
            before = values
            hour = now // 3600 * 3600
            assert asked(each, hour, ending_at=NOW) == asked(each, hour + 3599, ending_at=NOW)


def test_a_send_still_to_come_is_unknown():
    """A list for a later day is answered as if its sends did not exist yet, which they do not."""
    for each in sends_of(100):
        assert asked(each, each.sent_at - 1, unknown_pairs="empty")[0] == Verdict.EMPTY


@pytest.mark.parametrize("unknown_pairs", ["zero", "empty"])
def test_an_expired_send_answers_as_an_unknown_one(unknown_pairs):
    """14 days after the send nothing is left, and no error says so; with or without days is for the user to choose."""
    for each in sends_of(100):
        expired = each.sent_at + 14 * DAY_SECONDS + 1
        told = asked(each, expired, unknown_pairs=unknown_pairs)
        assert told[0] == Verdict(unknown_pairs)
        assert told == asked(each, expired, sent_at=None, unknown_pairs=unknown_pairs)
        if asked(each)[0] == Verdict.ACTIVITY:
            assert asked(each, expired - 1, unknown_pairs=unknown_pairs, length=16)[0] == Verdict.ACTIVITY


# The API


@asynccontextmanager
async def serving(clock=None, **config):
    """Run a stand-in and give it with a function that asks it, for its first pair unless told otherwise."""
    simulator = Simulator(SimulatorConfig(**{"pairs": 50, "api_key": KEY} | config), clock or HandClock())
    async with simulator, aiohttp.ClientSession() as session:
        session._retry_connection = False  # else aiohttp asks again by itself, and the test would count twice
        pair = simulator.population[0].pair
        usual = {"campaign_id": pair.campaign_id, "send_id": pair.send_id, "length": "14"}

        async def ask(path="/sends/data_series", authorization=f"Bearer {KEY}", method="GET", **query):
            given = {name: value for name, value in (usual | query).items() if value is not None}
            headers = {"Authorization": authorization} if authorization is not None else {}
            async with session.request(
                method, simulator.url + path, params=given, headers=headers, allow_redirects=False
            ) as response:
                return response.status, response.headers, await response.read()

        yield simulator, ask


async def test_every_answer_tells_the_budget_and_a_bad_question_costs_as_much_as_a_good_one():
    """Limit, remaining, reset, date and a request id are on 200, 400 and 404 alike, and each costs a call."""
    async with serving(limit=100) as (_, ask):
        seen = set()
        questions = [
            {},
            {"length": "0"},
            {"campaign_id": "nobody"},
            {"path": "/campaigns/list"},
            {"method": "POST"},
            {},
        ]
        for spent, (query, expected) in enumerate(zip(questions, (200, 400, 400, 404, 404, 200), strict=True), start=1):
            status, headers, body = await ask(**query)
            assert status == expected
            assert isinstance(json.loads(body)["message"], str)
            assert [headers[name] for name in BUDGET_HEADERS] == ["100", str(100 - spent), str(int(NOW) + 3600)]
            assert parsedate_to_datetime(headers["Date"]).timestamp() == NOW
            seen.add(headers["X-Request-Id"])
        assert len(seen) == len(questions)


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


@pytest.mark.parametrize(("odd", "expected"), [(b"%ff%ed%a0%80", 200), (b"%00", 200), (b"\xff\xfe", 400)])
async def test_bytes_that_are_no_text_are_answered_too(tmp_path, odd, expected):
    """A send id that is no UTF-8 gets an answer and a line in the log; raw, it is not even a request."""
    log = tmp_path / "answers.ndjson"
    async with serving(log=log) as (simulator, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]))
        query = f"campaign_id={simulator.population[0].pair.campaign_id}&length=1&send_id=".encode() + odd
        writer.write(b"GET /sends/data_series?" + query + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
        writer.write(f"Authorization: Bearer {KEY}\r\n\r\n".encode())
        assert int((await reader.read()).split()[1]) == expected
        writer.close()
        assert log.read_bytes().count(b"\n") == (expected == 200)


async def test_every_send_that_exists_can_be_asked_for():
    """Ids with URL-reserved characters arrive whole: their answers are their own."""
    async with serving(pairs=300) as (simulator, ask):
        verdicts = Counter()
        for each in simulator.population:
            status, _, body = await ask(campaign_id=each.pair.campaign_id, send_id=each.pair.send_id)
            verdicts[status, any(value for *_, value in numbers(json.loads(body)))] += 1
        assert verdicts[200, True] > 250
        assert verdicts.total() == verdicts[200, True] + verdicts[200, False] == simulator.answers["200"]


@pytest.mark.parametrize("authorization", ["Bearer wrong", KEY, f"bearer {KEY}", f"Basic {KEY}", "", None])
async def test_a_wrong_key_is_refused_as_recorded(authorization):
    """401: what was given comes back, the budget's headers are there but empty, nothing is spent, on any path."""
    async with serving(limit=10) as (simulator, ask):
        for path in ("/sends/data_series", "/elsewhere"):
            status, headers, body = await ask(path, authorization)
            assert status == 401
            assert json.loads(body) == {"message": f"Invalid API key: {(authorization or '').removeprefix('Bearer ')}"}
            assert [headers[name] for name in BUDGET_HEADERS] == ["", "", ""]
            assert headers["X-Request-Id"]
        assert simulator.budget.lowest_remaining == 10


async def test_a_key_without_the_permission_is_denied_and_costs_a_call():
    """403, unlike 401, knows the workspace: the budget is told and charged."""
    async with serving(limit=10) as (_, ask):
        status, headers, body = await ask(authorization="Bearer forbidden-key")
        assert (status, json.loads(body)) == (403, {"message": "Access Denied"})
        assert headers["X-RateLimit-Remaining"] == "9"


async def test_over_the_limit_is_429_until_the_clock_reaches_the_reset():
    """The limit is the limit; refusals say when to come back and are counted; then the window is full again."""
    clock = HandClock()
    async with serving(clock, limit=3) as (simulator, ask):
        answers = [await ask() for _ in range(5)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
        assert [answers[-1][1][name] for name in BUDGET_HEADERS] == ["3", "0", str(int(NOW) + 3600)]
        assert simulator.answers == {"200": 3, "429": 2}
        assert simulator.budget.refused == 2
        clock.now = float(answers[-1][1]["X-RateLimit-Reset"])
        status, headers, _ = await ask()
        assert (status, headers["X-RateLimit-Remaining"]) == (200, "2")


async def test_others_spend_from_the_same_budget():
    """A campaign late in the hour takes what is left: our next call finds it gone, and theirs are refused too."""
    clock = HandClock()
    async with serving(clock, limit=1000, neighbour="campaign", neighbour_share=1.0) as (simulator, ask):
        assert (await ask())[1]["X-RateLimit-Remaining"] == "999"
        clock.now += 42 * 60
        assert int((await ask())[1]["X-RateLimit-Remaining"]) == pytest.approx(498, abs=1)
        clock.now += 10 * 60
        assert (await ask())[0] == 429
        assert simulator.budget.neighbour_refused == 2


async def test_any_other_path_is_an_invalid_url():
    """A wrong path, a trailing slash included, is 404 with the observed body."""
    async with serving() as (_, ask):
        for path in ("/", "/sends/data_series/", "/campaigns/list"):
            status, _, body = await ask(path)
            assert (status, json.loads(body)) == (404, {"message": "Invalid URL"})


async def test_a_send_expires_while_the_clock_goes_on():
    """Asked every day the numbers grow, and after the fourteenth day they are gone, without an error."""
    clock = HandClock()
    async with serving(clock, unknown_pairs="empty") as (simulator, ask):
        each = next(each for each in simulator.population if each.sent_at > NOW - 3 * DAY_SECONDS)
        told = []
        while clock.now < each.sent_at + 15 * DAY_SECONDS:
            status, _, body = await ask(campaign_id=each.pair.campaign_id, send_id=each.pair.send_id, length="16")
            assert status == 200
            told.append(sum(value for *_, value in numbers(json.loads(body))))
            clock.now += DAY_SECONDS
        assert told[-1] == 0 < told[0]
        assert told[:-1] == sorted(told[:-1])


# Faults


@pytest.mark.parametrize("status", [202, 204, 400, 404, 500, 502, 503, 504, 520])
async def test_a_send_id_can_ask_for_a_status(status):
    """``fault-503`` is met each time, ``fault-503x2`` twice and then never again."""
    async with serving() as (_, ask):
        assert [(await ask(send_id=f"a fault-{status} z"))[0] for _ in range(3)] == [status] * 3
        assert [(await ask(send_id=f"fault-{status}x2"))[0] for _ in range(3)] == [status, status, 200]


async def test_a_send_id_can_ask_for_a_body_that_is_no_answer():
    """Pages, halves, nothings and other messages, all with 200: what a harvest must not take for data."""
    async with serving() as (_, ask):
        for fault in ("not_json", "html", "empty_body", "empty_object", "nosuccess"):
            status, headers, body = await ask(send_id=f"fault-{fault}")
            assert status == 200
            assert headers["Content-Type"].startswith("text/html" if fault == "html" else "application/json")
            if fault in ("not_json", "html", "empty_body"):
                with pytest.raises(ValueError, match="char"):
                    json.loads(body)
            else:
                assert json.loads(body).get("message") != "success"
            assert json.loads((await ask(send_id=f"fault-{fault}x0"))[2])["message"] == "success"


async def test_a_page_for_a_server_that_does_not_answer_tells_no_budget():
    """As Cloudflare does for 502 to 504 and 52x: HTML, and none of Braze's headers; a 500 is Braze's own."""
    async with serving() as (_, ask):
        for status in (502, 503, 520, 524):
            _, headers, body = await ask(send_id=f"fault-{status}")
            assert headers["Content-Type"].startswith("text/html")
            assert body.startswith(b"<html>")
            assert not set(BUDGET_HEADERS) & set(headers)
        assert (await ask(send_id="fault-500"))[1]["X-RateLimit-Limit"]
        status, headers, _ = await ask(send_id="fault-429")
        assert status == 429
        assert not set(BUDGET_HEADERS) & set(headers)


async def test_a_redirect_leads_away():
    """Who followed it would carry the key to another host."""
    async with serving() as (simulator, ask):
        status, headers, _ = await ask(send_id="fault-redirect")
        assert status == 302
        assert not headers["Location"].startswith(simulator.url)


@pytest.mark.parametrize(
    ("fault", "resets"),
    [
        ("headers_missing", []),
        ("headers_empty", [""]),
        ("headers_twice", [str(int(NOW) + 3600), "0"]),
        ("reset_milliseconds", [f"{int(NOW) + 3600}000"]),
        ("reset_negative", ["-1"]),
        ("reset_text", ["in an hour"]),
    ],
)
async def test_headers_may_be_absurd_while_the_data_is_good(fault, resets):
    """What the headers say of the budget may be anything; the body is an answer all the same."""
    async with serving() as (_, ask):
        status, headers, body = await ask(send_id=f"fault-{fault}")
        assert (status, json.loads(body)["message"]) == (200, "success")
        assert headers.getall("X-RateLimit-Reset", []) == resets


async def test_a_send_id_can_ask_for_a_broken_connection():
    """Nothing at all, or less than was promised: both reach the client as errors of the network."""
    async with serving() as (_, ask):
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(send_id="fault-reset")
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(send_id="fault-truncated")


async def test_a_gzip_stream_may_end_too_early():
    """A frame that is whole around a stream that is not: no client that looks at the frame alone can tell."""
    async with serving() as (_, ask):
        _, headers, body = await ask(send_id="fault-gzip_cut")
        assert headers["Content-Encoding"] == "gzip"
        with pytest.raises(ValueError, match="char"):
            json.loads(body)


async def test_a_silent_answer_is_logged_and_does_not_keep_the_stand_in_from_ending(tmp_path):
    """``slow`` never answers: the call is spent and in the log, and the stand-in still stops at once."""
    log = tmp_path / "answers.ndjson"
    async with serving(log=log) as (simulator, ask):
        waiting = asyncio.create_task(ask(send_id="fault-slow"))
        while not simulator.answers:
            await asyncio.sleep(0)
        assert simulator.answers == {"slow": 1}
        assert json.loads(log.read_text())["status"] is None
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_late_answer_tells_of_a_budget_that_is_gone_by_then():
    """``late`` is whole, but leaves behind an answer that was judged after it and has less of the budget left."""
    async with serving() as (simulator, ask):
        late = asyncio.create_task(ask(send_id="fault-late"))
        while not simulator.answers:
            await asyncio.sleep(0)
        _, newer, _ = await ask()
        assert not late.done()
        status, older, body = await late
        assert (status, json.loads(body)["message"]) == (200, "success")
        assert int(older["X-RateLimit-Remaining"]) == int(newer["X-RateLimit-Remaining"]) + 1


async def test_a_fault_that_does_not_exist_is_refused():
    """A slip in a fault's name shows: 400 where a send id asks for it, an error where the configuration does."""
    async with serving() as (_, ask):
        for slip in ("thunder", "199", "600"):
            status, _, body = await ask(send_id=f"fault-{slip}")
            assert (status, json.loads(body)) == (400, {"message": "no such fault"})
    with pytest.raises(UsageError, match="thunder"):
        SimulatorConfig(faults=("503", "thunder"))


async def test_faults_by_rate_are_the_same_in_every_run():
    """A rehearsal with faults can be repeated: the same calls in the same order meet the same faults."""

    async def told(**config):
        async with serving(fault_rate=0.3, seed=3, **config) as (simulator, ask):
            statuses = []
            for _ in range(60):
                try:
                    statuses.append((await ask())[0])
                except aiohttp.ClientError as error:
                    statuses.append(type(error).__name__)
            return statuses, simulator.answers

    first = await told()
    assert first == await told()
    assert 5 < 60 - first[0].count(200) < 30
    assert set((await told(faults=("503", "reset")))[1]) == {"200", "503", "reset"}


# The log


async def test_each_answer_is_in_the_log_and_the_key_is_not(tmp_path):
    """An outside verdict can be made after a kill: one whole line for each answer, flushed, without the key."""
    log = tmp_path / "answers.ndjson"
    async with serving(log=log, limit=6) as (simulator, ask):
        await ask(send_id="fault-503")
        await ask(authorization="Bearer wrong")
        await ask(send_id="a\nb&c")
        await ask(send_id="fault-reset_text")
        await ask("/elsewhere")
        for fault in ("reset", "truncated"):
            with pytest.raises(aiohttp.ClientError):
                await ask(send_id=f"fault-{fault}")
        await ask()
        lines = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
        told = [(line["status"], line["fault"], line["verdict"], line["remaining"]) for line in lines]
        assert told == [
            (503, "503", None, 5),
            (401, None, None, None),
            (200, None, "zero", 4),
            (200, "reset_text", "zero", 3),
            (404, None, None, 2),
            (None, "reset", None, 1),
            (200, "truncated", None, 0),
            (429, None, None, 0),
        ]
        assert lines[2]["send_id"] == "a\nb&c"
        assert {line["at"] for line in lines} == {NOW}
        assert simulator.answers.total() == len(lines)
    assert KEY.encode() not in log.read_bytes()
    assert b"wrong" not in log.read_bytes()


async def test_what_cannot_be_had_is_told(tmp_path):
    """A log that cannot be written and a port that is taken are the user's to mend: one sentence, and no listener."""
    with pytest.raises(UsageError, match="cannot write the log"):
        async with serving(log=tmp_path):
            pass
    async with serving() as (simulator, _):
        with pytest.raises(UsageError, match="choose another --port"):
            async with serving(port=int(simulator.url.rpartition(":")[2])):
                pass


# The command


async def test_the_command_serves_a_list_that_is_good_again_after_a_restart(harvester, tmp_path):
    """``simulate`` writes its sends; told the day, a later start writes the same; the Date it tells runs ahead."""
    lists = []
    for _ in range(2):
        process = harvester.start(
            "simulate", "--port", "0", "--pairs", "20", "--write-pairs", "pairs.csv", "--day", "2026-01-14",
            "--speed", "1e8", "--neighbour", "bursty", "--neighbour-share", "0.5",
        )  # fmt: skip
        said = await asyncio.to_thread(process.stderr.readline)
        assert b"--day 2026-01-14" in said
        lists.append((tmp_path / "pairs.csv").read_text())
        url = next(word for word in said.decode().split() if word.startswith("http")).rstrip(";")
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            date_told = parsedate_to_datetime(response.headers["Date"])
        assert date_told > datetime.now(UTC) + timedelta(days=1)
        process.send_signal(signal.SIGINT)
        _, said = await asyncio.to_thread(process.communicate)
        assert (process.returncode, said.count(b"\n")) == (0, 1), said
        assert b"answered 1 x 401" in said
    assert lists[0] == lists[1]
    assert lists[0].count("\n") == 21


async def test_mistakes_of_the_user_are_one_sentence(harvester, tmp_path):
    """Whatever cannot be served: exit 2 and a sentence, never a traceback."""
    for arguments in (
        ("--log", "."),
        ("--write-pairs", "nowhere/pairs.csv"),
        ("--neighbour", "campaign"),
        ("--fault", "thunder", "--fault-rate", "0.1"),
        ("--fault", "503"),
        ("--fault-rate", "7"),
    ):
        code, out, err = await harvester.run("simulate", "--port", "0", *arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert "Traceback" not in err


async def test_the_faults_are_listed(harvester):
    """A user finds every name that a send id or ``--fault`` may hold."""
    code, out, err = await harvester.run("simulate", "--list-faults")
    assert code == 0, err
    assert {line.split()[0] for line in out.splitlines()} == {*FAULTS, "200"}
