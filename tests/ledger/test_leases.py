"""Leases that are shorter than a batch takes."""

import asyncio
import csv
import json
import sys
from collections import Counter
from pathlib import Path

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


class Hasty(Command):
    """The command with leases that are short, so that a test need not wait for two minutes."""

    def command(self, *arguments: str) -> list[str]:
        """What to execute."""
        return [sys.executable, "-c", SHORT_LEASES, *arguments]


def listed(folder: Path, simulator: Simulator) -> Counter:
    """Write the list; gives what must be captured."""
    pairs = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
    with (folder / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("campaign_id", "send_id"), *pairs])
    return Counter(pairs)


def captures(folder: Path) -> Counter:
    """How often each pair was captured."""
    rows = read_rows(folder / "harvest")
    return Counter((row["campaign_id"], row["send_id"]) for row in rows if row["level"] == "capture")


async def test_a_batch_that_takes_longer_than_its_lease_stays_its_owners(tmp_path):
    """Leases are renewed while answers are slow: who looks for lapsed ones finds none, and nothing is asked twice."""
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, latency_seconds=0.3)
    async with Simulator(config) as simulator:
        expected, command = listed(tmp_path, simulator), Hasty(tmp_path)
        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--json", "--concurrency", "4")
        process = command.start(*arguments)
        while simulator.answers.total() < PAIRS - 10:
            await asyncio.sleep(0.01)
        code, _, err = await command.run(*arguments)
        assert code in (0, 3), err
        out, err = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, err
        assert b"batch_lost" not in err
        assert json.loads(out)["books"]["balanced"]
        assert simulator.answers.total() == PAIRS
    assert captures(tmp_path) == expected
