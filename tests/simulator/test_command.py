"""Tests of ``harvester simulate``."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp

from harvester.simulator.faults import FAULTS


async def test_the_command_writes_a_list_that_stays_valid_after_a_restart(harvester, tmp_path):
    """With the same day, a later start has the same sends. With a speed, the header ``Date`` is in the future."""
    arguments = "--port 0 --pairs 20 --write-pairs pairs.csv --day 2026-01-14 --speed 1e8"
    neighbour = "--neighbour bursty --neighbour-share 0.5"
    lists = []
    for _ in range(2):
        process = harvester.start_warm("simulate", *arguments.split(), *neighbour.split())
        output = await asyncio.to_thread(process.stderr.readline)
        assert b"--day 2026-01-14" in output
        lists.append((tmp_path / "pairs.csv").read_text())
        url = next(word for word in output.decode().split() if word.startswith("http")).rstrip(";")
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            response_time = parsedate_to_datetime(response.headers["Date"])
        assert response_time > datetime.now(UTC) + timedelta(days=1)
        process.send_signal(signal.SIGINT)
        _, output = await asyncio.to_thread(process.communicate)
        assert (process.returncode, output.count(b"\n")) == (0, 1), output
        assert b"responses: 1 401" in output
    assert lists[0] == lists[1]
    assert lists[0].count("\n") == 21


async def test_a_wrong_option_is_a_usage_error(harvester, tmp_path):
    """The command exits with 2 and a message, without a traceback."""
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


async def test_list_faults_prints_every_fault(harvester):
    """It prints every name that a send id or ``--fault`` can use."""
    code, out, err = await harvester.run("simulate", "--list-faults")
    assert code == 0, err
    assert {line.split()[0] for line in out.splitlines()} == {*FAULTS, "200"}
