"""Tests of the responses of the stand-in API."""

import asyncio
import json
from collections import Counter
from email.utils import parsedate_to_datetime

import pytest

from harvester.model import DAY_SECONDS
from tests.support.clocks import SettableClock
from tests.support.stand_in import KEY, NOW, QUOTA_HEADERS, list_counters, run_stand_in


async def test_every_response_reports_the_quota_and_costs_one_request():
    """A 200, a 400 and a 404 report limit, remaining, reset, date and a request id. Each costs one request."""
    async with run_stand_in(limit=100) as (_, send_request):
        request_ids = set()
        queries = [
            {},
            {"length": "0"},
            {"campaign_id": "nobody"},
            {"path": "/campaigns/list"},
            {"method": "POST"},
            {},
        ]
        statuses = (200, 400, 400, 404, 404, 200)
        for spent, (query, expected) in enumerate(zip(queries, statuses, strict=True), start=1):
            status, headers, body = await send_request(**query)
            assert status == expected
            assert isinstance(json.loads(body)["message"], str)
            assert [headers[name] for name in QUOTA_HEADERS] == ["100", str(100 - spent), str(int(NOW) + 3600)]
            assert parsedate_to_datetime(headers["Date"]).timestamp() == NOW
            request_ids.add(headers["X-Request-Id"])
        assert len(request_ids) == len(queries)


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
async def test_the_error_of_an_invalid_parameter_names_it(query, message):
    """Each documented parameter is validated, and the 400 says which one is invalid."""
    async with run_stand_in() as (_, send_request):
        status, _, body = await send_request(**query)
        assert status == 400
        assert message in json.loads(body)["message"]


@pytest.mark.parametrize(("send_id", "expected"), [(b"%ff%ed%a0%80", 200), (b"%00", 200), (b"\xff\xfe", 400)])
async def test_a_send_id_that_is_not_utf8_gets_a_response(tmp_path, send_id, expected):
    """If it is percent-encoded, it gets a response and a log line. Otherwise the request is invalid."""
    log = tmp_path / "responses.ndjson"
    async with run_stand_in(log=log) as (simulator, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]))
        query = f"campaign_id={simulator.population[0].pair.campaign_id}&length=1&send_id=".encode() + send_id
        writer.write(b"GET /sends/data_series?" + query + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
        writer.write(f"Authorization: Bearer {KEY}\r\n\r\n".encode())
        assert int((await reader.read()).split()[1]) == expected
        writer.close()
        assert log.read_bytes().count(b"\n") == (expected == 200)


async def test_every_existing_send_can_be_requested():
    """Ids with characters that are reserved in URLs arrive unchanged, and each send gets its own data."""
    async with run_stand_in(pairs=300) as (simulator, send_request):
        verdicts = Counter()
        for each in simulator.population:
            status, _, body = await send_request(campaign_id=each.pair.campaign_id, send_id=each.pair.send_id)
            verdicts[status, any(value for *_, value in list_counters(json.loads(body)))] += 1
        assert verdicts[200, True] > 250
        assert verdicts.total() == verdicts[200, True] + verdicts[200, False] == simulator.responses["200"]


@pytest.mark.parametrize("authorization", ["Bearer wrong", KEY, f"bearer {KEY}", f"Basic {KEY}", "", None])
async def test_a_wrong_key_gets_a_401_like_the_recorded_one(authorization):
    """On any path, the response repeats the key, the quota headers are empty, and no request is charged."""
    async with run_stand_in(limit=10) as (simulator, send_request):
        for path in ("/sends/data_series", "/elsewhere"):
            status, headers, body = await send_request(path, authorization)
            assert status == 401
            assert json.loads(body) == {"message": f"Invalid API key: {(authorization or '').removeprefix('Bearer ')}"}
            assert [headers[name] for name in QUOTA_HEADERS] == ["", "", ""]
            assert headers["X-Request-Id"]
        assert simulator.quota.lowest_remaining == 10


async def test_a_key_without_the_permission_gets_a_403_that_costs_a_request():
    """Unlike a wrong key, this key belongs to a workspace. So the response reports the quota."""
    async with run_stand_in(limit=10) as (_, send_request):
        status, headers, body = await send_request(authorization="Bearer forbidden-key")
        assert (status, json.loads(body)) == (403, {"message": "Access Denied"})
        assert headers["X-RateLimit-Remaining"] == "9"


async def test_requests_over_the_limit_get_429_until_the_reset():
    """Refused requests are counted, and their responses report the reset. At the reset, the whole limit is left."""
    clock = SettableClock(NOW)
    async with run_stand_in(clock, limit=3) as (simulator, send_request):
        responses = [await send_request() for _ in range(5)]
        assert [status for status, _, _ in responses] == [200, 200, 200, 429, 429]
        assert [responses[-1][1][name] for name in QUOTA_HEADERS] == ["3", "0", str(int(NOW) + 3600)]
        assert simulator.responses == {"200": 3, "429": 2}
        assert simulator.quota.refused == 2
        clock.now = float(responses[-1][1]["X-RateLimit-Reset"])
        status, headers, _ = await send_request()
        assert (status, headers["X-RateLimit-Remaining"]) == (200, "2")


async def test_a_neighbour_uses_the_same_quota():
    """A campaign late in the hour uses all that is left: our next request and some of its own are refused."""
    clock = SettableClock(NOW)
    async with run_stand_in(clock, limit=1000, neighbour="campaign", neighbour_share=1.0) as (simulator, send_request):
        assert (await send_request())[1]["X-RateLimit-Remaining"] == "999"
        clock.now += 42 * 60
        assert int((await send_request())[1]["X-RateLimit-Remaining"]) == pytest.approx(498, abs=1)
        clock.now += 10 * 60
        assert (await send_request())[0] == 429
        assert simulator.quota.neighbour_refused == 2


async def test_any_other_path_is_an_invalid_url():
    """A wrong path gets a 404 like the recorded one, and so does the right path with a trailing slash."""
    async with run_stand_in() as (_, send_request):
        for path in ("/", "/sends/data_series/", "/campaigns/list"):
            status, _, body = await send_request(path)
            assert (status, json.loads(body)) == (404, {"message": "Invalid URL"})


async def test_a_send_expires_after_fourteen_days():
    """Its numbers grow every day. After the fourteenth day, the response has no numbers but is not an error."""
    clock = SettableClock(NOW)
    async with run_stand_in(clock, unknown_pairs="empty") as (simulator, send_request):
        each = next(each for each in simulator.population if each.sent_at > NOW - 3 * DAY_SECONDS)
        totals = []
        while clock.now < each.sent_at + 15 * DAY_SECONDS:
            status, _, body = await send_request(
                campaign_id=each.pair.campaign_id, send_id=each.pair.send_id, length="16"
            )
            assert status == 200
            totals.append(sum(value for *_, value in list_counters(json.loads(body))))
            clock.now += DAY_SECONDS
        assert totals[-1] == 0 < totals[0]
        assert totals[:-1] == sorted(totals[:-1])
