"""The faults of the stand-in."""

import asyncio
import json

import aiohttp
import pytest

from harvester.errors import UsageError
from harvester.simulator import SimulatorConfig
from tests.support.stand_in import NOW, QUOTA_HEADERS, serving


@pytest.mark.parametrize("status", [202, 204, 400, 404, 500, 502, 503, 504, 520])
async def test_a_send_id_can_request_a_status(status):
    """``fault-503`` applies each time, ``fault-503x2`` the first two times."""
    async with serving() as (_, ask):
        assert [(await ask(send_id=f"a fault-{status} z"))[0] for _ in range(3)] == [status] * 3
        assert [(await ask(send_id=f"fault-{status}x2"))[0] for _ in range(3)] == [status, status, 200]


async def test_a_send_id_can_request_an_unusable_body():
    """Pages, truncated and empty bodies and other messages come with 200."""
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


async def test_a_page_of_cloudflare_has_no_quota_headers():
    """502 to 504 and 52x are HTML without Braze's headers; a 500 is Braze's own."""
    async with serving() as (_, ask):
        for status in (502, 503, 520, 524):
            _, headers, body = await ask(send_id=f"fault-{status}")
            assert headers["Content-Type"].startswith("text/html")
            assert body.startswith(b"<html>")
            assert not set(QUOTA_HEADERS) & set(headers)
        assert (await ask(send_id="fault-500"))[1]["X-RateLimit-Limit"]
        status, headers, _ = await ask(send_id="fault-429")
        assert status == 429
        assert not set(QUOTA_HEADERS) & set(headers)


async def test_a_redirect_leads_to_another_host():
    """A client that follows it would send the key to another host."""
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
async def test_quota_headers_can_be_wrong_while_the_data_is_right(fault, resets):
    """The faults of the headers leave the body unchanged."""
    async with serving() as (_, ask):
        status, headers, body = await ask(send_id=f"fault-{fault}")
        assert (status, json.loads(body)["message"]) == (200, "success")
        assert headers.getall("X-RateLimit-Reset", []) == resets


async def test_a_send_id_can_request_a_broken_connection():
    """No response, or less than announced: the client sees a network error."""
    async with serving() as (_, ask):
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(send_id="fault-reset")
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(send_id="fault-truncated")


async def test_a_gzip_stream_can_end_too_early():
    """The frame is complete and the stream is not: a client that checks only the frame cannot notice it."""
    async with serving() as (_, ask):
        _, headers, body = await ask(send_id="fault-gzip_cut")
        assert headers["Content-Encoding"] == "gzip"
        with pytest.raises(ValueError, match="char"):
            json.loads(body)


async def test_a_silent_response_is_logged_and_does_not_delay_the_end(tmp_path):
    """``slow`` never answers: the request is charged and logged, and the stand-in stops at once."""
    log = tmp_path / "answers.ndjson"
    async with serving(log=log) as (simulator, ask):
        waiting = asyncio.create_task(ask(send_id="fault-slow"))
        while not simulator.responses:
            await asyncio.sleep(0)
        assert simulator.responses == {"slow": 1}
        assert json.loads(log.read_text())["status"] is None
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_late_response_reports_an_old_quota():
    """``late`` is complete, but arrives after a response that was decided later and has less quota left."""
    async with serving() as (simulator, ask):
        late = asyncio.create_task(ask(send_id="fault-late"))
        while not simulator.responses:
            await asyncio.sleep(0)
        _, newer, _ = await ask()
        assert not late.done()
        status, older, body = await late
        assert (status, json.loads(body)["message"]) == (200, "success")
        assert int(older["X-RateLimit-Remaining"]) == int(newer["X-RateLimit-Remaining"]) + 1


async def test_an_unknown_fault_is_refused():
    """A send id with an unknown fault gets 400; a configuration with one is an error."""
    async with serving() as (_, ask):
        for slip in ("thunder", "199", "600"):
            status, _, body = await ask(send_id=f"fault-{slip}")
            assert (status, json.loads(body)) == (400, {"message": "no such fault"})
    with pytest.raises(UsageError, match="thunder"):
        SimulatorConfig(faults=("503", "thunder"))


async def test_faults_by_rate_are_repeatable():
    """The same requests in the same order get the same faults."""

    async def run(**config):
        async with serving(fault_rate=0.3, seed=3, **config) as (simulator, ask):
            statuses = []
            for _ in range(60):
                try:
                    statuses.append((await ask())[0])
                except aiohttp.ClientError as error:
                    statuses.append(type(error).__name__)
            return statuses, simulator.responses

    first = await run()
    assert first == await run()
    assert 5 < 60 - first[0].count(200) < 30
    assert set((await run(faults=("503", "reset")))[1]) == {"200", "503", "reset"}
