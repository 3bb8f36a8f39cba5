"""The stand-in's log."""

import json

import aiohttp
import pytest

from harvester.errors import UsageError
from tests.support.stand_in import KEY, NOW, serving


async def test_the_log_contains_each_response_and_not_the_key(tmp_path):
    """Each response is one complete, flushed line without the key, so that a verdict is possible after a kill."""
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


async def test_a_log_or_port_that_cannot_be_used_is_an_error(tmp_path):
    """One sentence names it, and nothing listens."""
    with pytest.raises(UsageError, match="cannot write the log"):
        async with serving(log=tmp_path):
            pass
    async with serving() as (simulator, _):
        with pytest.raises(UsageError, match="choose another --port"):
            async with serving(port=int(simulator.url.rpartition(":")[2])):
                pass
