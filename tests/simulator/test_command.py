"""``harvester simulate``."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp

from harvester.simulator.faults import FAULTS


async def test_the_command_writes_a_list_that_stays_valid_after_a_restart(harvester, tmp_path):
    """``simulate`` writes its sends. With the same day, a later start has the same sends; its Date runs ahead."""
    lists = []
    for _ in range(2):
        process = harvester.start_warm(
            "simulate", "--port", "0", "--pairs", "20", "--write-pairs", "pairs.csv", "--day", "2026-01-14",
            "--speed", "1e8", "--neighbour", "bursty", "--neighbour-share", "0.5",
        )  # fmt: skip
        output = await asyncio.to_thread(process.stderr.readline)
        assert b"--day 2026-01-14" in output
        lists.append((tmp_path / "pairs.csv").read_text())
        url = next(word for word in output.decode().split() if word.startswith("http")).rstrip(";")
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            date_told = parsedate_to_datetime(response.headers["Date"])
        assert date_told > datetime.now(UTC) + timedelta(days=1)
        process.send_signal(signal.SIGINT)
        _, output = await asyncio.to_thread(process.communicate)
        assert (process.returncode, output.count(b"\n")) == (0, 1), output
        assert b"responses: 1 401" in output
    assert lists[0] == lists[1]
    assert lists[0].count("\n") == 21


async def test_usage_errors_are_one_sentence(harvester, tmp_path):
    """Wrong options end with 2 and one sentence, never with a traceback."""
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
    """``--list-faults`` prints every name that a send id or ``--fault`` can use."""
    code, out, err = await harvester.run("simulate", "--list-faults")
    assert code == 0, err
    assert {line.split()[0] for line in out.splitlines()} == {*FAULTS, "200"}
