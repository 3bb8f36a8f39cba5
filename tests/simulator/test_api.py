"""The stand-in's responses."""

import asyncio
import json
from collections import Counter
from email.utils import parsedate_to_datetime

import pytest

from harvester.model import DAY_SECONDS
from tests.support.stand_in import KEY, NOW, QUOTA_HEADERS, HandClock, numbers, serving


async def test_every_response_reports_the_quota_and_costs_one_request():
    """200, 400 and 404 have limit, remaining, reset, date and a request id, and each costs one request."""
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
            assert [headers[name] for name in QUOTA_HEADERS] == ["100", str(100 - spent), str(int(NOW) + 3600)]
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
async def test_an_invalid_parameter_is_refused_by_name(query, message):
    """Each documented parameter is validated, and the refusal names it."""
    async with serving() as (_, ask):
        status, _, body = await ask(**query)
        assert status == 400
        assert message in json.loads(body)["message"]


@pytest.mark.parametrize(("odd", "expected"), [(b"%ff%ed%a0%80", 200), (b"%00", 200), (b"\xff\xfe", 400)])
async def test_a_send_id_that_is_not_utf8_gets_a_response(tmp_path, odd, expected):
    """Percent-encoded, it gets a response and a log line; raw, it is not a valid request."""
    log = tmp_path / "answers.ndjson"
    async with serving(log=log) as (simulator, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]))
        query = f"campaign_id={simulator.population[0].pair.campaign_id}&length=1&send_id=".encode() + odd
        writer.write(b"GET /sends/data_series?" + query + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
        writer.write(f"Authorization: Bearer {KEY}\r\n\r\n".encode())
        assert int((await reader.read()).split()[1]) == expected
        writer.close()
        assert log.read_bytes().count(b"\n") == (expected == 200)


async def test_every_existing_send_can_be_requested():
    """Ids with URL-reserved characters arrive unchanged, and their data is their own."""
    async with serving(pairs=300) as (simulator, ask):
        verdicts = Counter()
        for each in simulator.population:
            status, _, body = await ask(campaign_id=each.pair.campaign_id, send_id=each.pair.send_id)
            verdicts[status, any(value for *_, value in numbers(json.loads(body)))] += 1
        assert verdicts[200, True] > 250
        assert verdicts.total() == verdicts[200, True] + verdicts[200, False] == simulator.responses["200"]


@pytest.mark.parametrize("authorization", ["Bearer wrong", KEY, f"bearer {KEY}", f"Basic {KEY}", "", None])
async def test_a_wrong_key_gets_the_recorded_401(authorization):
    """The key is echoed, the quota headers are empty, and nothing is charged, on any path."""
    async with serving(limit=10) as (simulator, ask):
        for path in ("/sends/data_series", "/elsewhere"):
            status, headers, body = await ask(path, authorization)
            assert status == 401
            assert json.loads(body) == {"message": f"Invalid API key: {(authorization or '').removeprefix('Bearer ')}"}
            assert [headers[name] for name in QUOTA_HEADERS] == ["", "", ""]
            assert headers["X-Request-Id"]
        assert simulator.quota.lowest_remaining == 10


async def test_a_key_without_the_permission_gets_a_403_that_costs_a_request():
    """Unlike a 401, a 403 belongs to a workspace: it reports the quota and is charged."""
    async with serving(limit=10) as (_, ask):
        status, headers, body = await ask(authorization="Bearer forbidden-key")
        assert (status, json.loads(body)) == (403, {"message": "Access Denied"})
        assert headers["X-RateLimit-Remaining"] == "9"


async def test_requests_over_the_limit_get_429_until_the_reset():
    """Refusals are counted and report the reset; at the reset the window is full again."""
    clock = HandClock()
    async with serving(clock, limit=3) as (simulator, ask):
        answers = [await ask() for _ in range(5)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
        assert [answers[-1][1][name] for name in QUOTA_HEADERS] == ["3", "0", str(int(NOW) + 3600)]
        assert simulator.responses == {"200": 3, "429": 2}
        assert simulator.quota.refused == 2
        clock.now = float(answers[-1][1]["X-RateLimit-Reset"])
        status, headers, _ = await ask()
        assert (status, headers["X-RateLimit-Remaining"]) == (200, "2")


async def test_a_neighbour_uses_the_same_quota():
    """A campaign late in the hour uses the rest: our next request is refused, and some of theirs too."""
    clock = HandClock()
    async with serving(clock, limit=1000, neighbour="campaign", neighbour_share=1.0) as (simulator, ask):
        assert (await ask())[1]["X-RateLimit-Remaining"] == "999"
        clock.now += 42 * 60
        assert int((await ask())[1]["X-RateLimit-Remaining"]) == pytest.approx(498, abs=1)
        clock.now += 10 * 60
        assert (await ask())[0] == 429
        assert simulator.quota.neighbour_refused == 2


async def test_any_other_path_is_an_invalid_url():
    """A wrong path, also with a trailing slash, gets the recorded 404."""
    async with serving() as (_, ask):
        for path in ("/", "/sends/data_series/", "/campaigns/list"):
            status, _, body = await ask(path)
            assert (status, json.loads(body)) == (404, {"message": "Invalid URL"})


async def test_a_send_expires_after_fourteen_days():
    """Requested every day, its numbers grow; after the fourteenth day they are gone, without an error."""
    clock = HandClock()
    async with serving(clock, unknown_pairs="empty") as (simulator, ask):
        each = next(each for each in simulator.population if each.sent_at > NOW - 3 * DAY_SECONDS)
        totals = []
        while clock.now < each.sent_at + 15 * DAY_SECONDS:
            status, _, body = await ask(campaign_id=each.pair.campaign_id, send_id=each.pair.send_id, length="16")
            assert status == 200
            totals.append(sum(value for *_, value in numbers(json.loads(body))))
            clock.now += DAY_SECONDS
        assert totals[-1] == 0 < totals[0]
        assert totals[:-1] == sorted(totals[:-1])
