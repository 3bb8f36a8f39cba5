"""The stand-in's responses."""

import asyncio
import json
from collections import Counter
from email.utils import parsedate_to_datetime

import pytest

from harvester.model import DAY_SECONDS
from tests.support.stand_in import BUDGET_HEADERS, KEY, NOW, HandClock, numbers, serving


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
