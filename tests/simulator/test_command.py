"""``harvester simulate``."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp

from harvester.simulator.faults import FAULTS


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
