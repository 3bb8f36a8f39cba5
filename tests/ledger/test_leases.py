"""Requests that take longer than a lease."""

import asyncio
import csv
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.simulator import Simulator, SimulatorConfig
from tests.conftest import KEY, Command, read_rows

PAIRS = 60
LEASE_SECONDS = 1.5
SHORT_LEASES = f"""
import harvester.ledger.database as database
database.LEASE_SECONDS = {LEASE_SECONDS}
from harvester.cli import main
main()
"""


class ShortLeaseCommand(Command):
    """The command with short leases, so that a test does not wait for a minute."""

    def command(self, *arguments: str) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-c", SHORT_LEASES, *arguments]


def write_list(folder: Path, simulator: Simulator) -> Counter:
    """Write the list, and return the captures to expect."""
    pairs = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
    with (folder / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("campaign_id", "send_id"), *pairs])
    return Counter(pairs)


def count_captures(folder: Path) -> Counter:
    """Count the captures of each pair."""
    rows = read_rows(folder / "harvest")
    return Counter((row["campaign_id"], row["send_id"]) for row in rows if row["level"] == "capture")


def name_in_command(location) -> str:
    """Return a ledger's location as it is written in a command."""
    return str(location) if isinstance(location, Path) else location.url


@pytest.mark.long
async def test_a_slow_batch_keeps_its_lease(tmp_path, location):
    """While a batch is slow, its owner renews the lease: no other process recovers or repeats its requests."""
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, latency_seconds=0.3)
    async with Simulator(config) as simulator:
        expected, command = write_list(tmp_path, simulator), ShortLeaseCommand(tmp_path)
        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--json", "--concurrency", "4")
        arguments += ("--state", name_in_command(location))
        process = command.start(*arguments)
        while simulator.responses.total() < PAIRS - 10:
            await asyncio.sleep(0.01)
        code, _, err = await command.run(*arguments)
        assert code in (0, 3), err
        out, err = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, err
        assert b"batch_lost" not in err
        assert json.loads(out)["books"]["balanced"]
        assert simulator.responses.total() == PAIRS
    assert count_captures(tmp_path) == expected


@pytest.mark.long
async def test_readings_of_killed_processes_are_captured_once_from_a_postgresql_ledger(tmp_path, database_url):
    """A process of another machine cannot be seen to die: its readings are claimed when their leases end."""
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, latency_seconds=0.1)
    async with Simulator(config) as simulator:
        expected, command = write_list(tmp_path, simulator), ShortLeaseCommand(tmp_path)
        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--concurrency", "4", "--state", database_url.url)
        for killed_after in (5, 15, 30):
            with command.start(*arguments) as process:
                while simulator.responses.total() < killed_after:
                    await asyncio.sleep(0.01)
                process.kill()
                await asyncio.to_thread(process.communicate)
        code, _, err = await command.run(*arguments)
        assert code == 0, err
    assert count_captures(tmp_path) == expected
    async with await Ledger.open(database_url, clock=SystemClock()) as ledger:
        assert await ledger.reports.find_wrong_counts() == []
