"""Tests of the faults of the stand-in."""

import asyncio
import json

import aiohttp
import pytest

from harvester.errors import UsageError
from harvester.simulator import SimulatorConfig
from tests.support.stand_in import NOW, QUOTA_HEADERS, run_stand_in


@pytest.mark.parametrize("status", [202, 204, 400, 404, 500, 502, 503, 504, 520])
async def test_a_send_id_can_request_a_status(status):
    """``fault-503`` applies to each request, ``fault-503x2`` to the first two requests."""
    async with run_stand_in() as (_, send_request):
        assert [(await send_request(send_id=f"a fault-{status} z"))[0] for _ in range(3)] == [status] * 3
        assert [(await send_request(send_id=f"fault-{status}x2"))[0] for _ in range(3)] == [status, status, 200]


async def test_a_send_id_can_request_an_invalid_body():
    """HTML pages, truncated and empty bodies and other messages have the status 200."""
    async with run_stand_in() as (_, send_request):
        for fault in ("not_json", "html", "empty_body", "empty_object", "nosuccess"):
            status, headers, body = await send_request(send_id=f"fault-{fault}")
            assert status == 200
            assert headers["Content-Type"].startswith("text/html" if fault == "html" else "application/json")
            if fault in ("not_json", "html", "empty_body"):
                with pytest.raises(ValueError, match="char"):
                    json.loads(body)
            else:
                assert json.loads(body).get("message") != "success"
            assert json.loads((await send_request(send_id=f"fault-{fault}x0"))[2])["message"] == "success"


async def test_a_page_of_cloudflare_has_no_quota_headers():
    """502 to 504 and 52x are HTML pages without Braze's headers; a 500 has them."""
    async with run_stand_in() as (_, send_request):
        for status in (502, 503, 520, 524):
            _, headers, body = await send_request(send_id=f"fault-{status}")
            assert headers["Content-Type"].startswith("text/html")
            assert body.startswith(b"<html>")
            assert not set(QUOTA_HEADERS) & set(headers)
        assert (await send_request(send_id="fault-500"))[1]["X-RateLimit-Limit"]
        status, headers, _ = await send_request(send_id="fault-429")
        assert status == 429
        assert not set(QUOTA_HEADERS) & set(headers)


async def test_a_redirect_leads_to_another_host():
    """A client that follows it would send the key to another host."""
    async with run_stand_in() as (simulator, send_request):
        status, headers, _ = await send_request(send_id="fault-redirect")
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
async def test_quota_headers_can_be_wrong_while_the_data_is_right(fault, resets):
    """Faults of headers do not change the body."""
    async with run_stand_in() as (_, send_request):
        status, headers, body = await send_request(send_id=f"fault-{fault}")
        assert (status, json.loads(body)["message"]) == (200, "success")
        assert headers.getall("X-RateLimit-Reset", []) == resets


async def test_a_send_id_can_request_a_broken_connection():
    """Without a response, or with an incomplete one, the client gets a network error."""
    async with run_stand_in() as (_, send_request):
        with pytest.raises(aiohttp.ClientConnectionError):
            await send_request(send_id="fault-reset")
        with pytest.raises(aiohttp.ClientPayloadError):
            await send_request(send_id="fault-truncated")


async def test_a_gzip_stream_can_be_incomplete():
    """The body has the announced length, so a client detects the fault only if it checks the gzip stream."""
    async with run_stand_in() as (_, send_request):
        _, headers, body = await send_request(send_id="fault-gzip_cut")
        assert headers["Content-Encoding"] == "gzip"
        with pytest.raises(ValueError, match="char"):
            json.loads(body)


async def test_a_request_without_a_response_is_logged_and_does_not_delay_the_stop(tmp_path):
    """With ``slow``, the request is charged and logged, and the stand-in stops at once."""
    log = tmp_path / "responses.ndjson"
    async with run_stand_in(log=log) as (simulator, send_request):
        request = asyncio.create_task(send_request(send_id="fault-slow"))
        while not simulator.responses:
            await asyncio.sleep(0)
        assert simulator.responses == {"slow": 1}
        assert json.loads(log.read_text())["status"] is None
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_a_late_response_reports_an_old_quota():
    """It is complete, but arrives after a response that was decided later and reports less quota."""
    async with run_stand_in() as (simulator, send_request):
        late = asyncio.create_task(send_request(send_id="fault-late"))
        while not simulator.responses:
            await asyncio.sleep(0)
        _, newer, _ = await send_request()
        assert not late.done()
        status, older, body = await late
        assert (status, json.loads(body)["message"]) == (200, "success")
        assert int(older["X-RateLimit-Remaining"]) == int(newer["X-RateLimit-Remaining"]) + 1


async def test_an_unknown_fault_is_refused():
    """A send id with an unknown fault gets a 400; a configuration with one is a usage error."""
    async with run_stand_in() as (_, send_request):
        for fault in ("thunder", "199", "600"):
            status, _, body = await send_request(send_id=f"fault-{fault}")
            assert (status, json.loads(body)) == (400, {"message": "no such fault"})
    with pytest.raises(UsageError, match="thunder"):
        SimulatorConfig(faults=("503", "thunder"))


async def test_faults_by_rate_are_repeatable():
    """The same requests in the same order get the same faults."""

    async def run(**config):
        async with run_stand_in(fault_rate=0.3, seed=3, **config) as (simulator, send_request):
            statuses = []
            for _ in range(60):
                try:
                    statuses.append((await send_request())[0])
                except aiohttp.ClientError as error:
                    statuses.append(type(error).__name__)
            return statuses, simulator.responses

    first = await run()
    assert first == await run()
    assert 5 < 60 - first[0].count(200) < 30
    assert set((await run(faults=("503", "reset")))[1]) == {"200", "503", "reset"}
