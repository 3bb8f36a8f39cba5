"""Tests of the log of the stand-in."""

import json

import aiohttp
import pytest

from harvester.errors import UsageError
from tests.support.stand_in import KEY, NOW, run_stand_in


async def test_the_log_contains_every_response_without_the_key(tmp_path):
    """Each response is one complete line that is written at once, so the log is correct even after a kill."""
    log = tmp_path / "responses.ndjson"
    async with run_stand_in(log=log, limit=6) as (simulator, send_request):
        await send_request(send_id="fault-503")
        await send_request(authorization="Bearer wrong")
        await send_request(send_id="a\nb&c")
        await send_request(send_id="fault-reset_text")
        await send_request("/elsewhere")
        for fault in ("reset", "truncated"):
            with pytest.raises(aiohttp.ClientError):
                await send_request(send_id=f"fault-{fault}")
        await send_request()
        lines = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
        logged = [(line["status"], line["fault"], line["verdict"], line["remaining"]) for line in lines]
        assert logged == [
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
        assert simulator.responses.total() == len(lines)
    assert KEY.encode() not in log.read_bytes()
    assert b"wrong" not in log.read_bytes()


async def test_a_log_or_port_that_cannot_be_used_is_a_usage_error(tmp_path):
    """The message names the log or the option to change, and the stand-in does not start."""
    with pytest.raises(UsageError, match="cannot write the log"):
        async with run_stand_in(log=tmp_path):
            pass
    async with run_stand_in() as (simulator, _):
        with pytest.raises(UsageError, match="choose another --port"):
            async with run_stand_in(port=int(simulator.url.rpartition(":")[2])):
                pass
