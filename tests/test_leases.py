"""Leases that are too short for what happens: slow answers, and a process that was stopped and goes on."""

import asyncio
import csv
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from conftest import KEY, Command, rows_of

from harvester.simulator import Simulator, SimulatorConfig

PAIRS = 60
LEASE_SECONDS = 1.5
SHORT_LEASES = f"""
import harvester.ledger.ledger as ledger
ledger.LEASE_SECONDS = {LEASE_SECONDS}
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
    rows = rows_of(folder / "harvest")
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


async def test_a_zombie_is_fenced(tmp_path):
    """Stopped for longer than its lease, then continued: its batch was given to another, and its seal is refused."""
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, latency_seconds=0.05)
    async with Simulator(config) as simulator:
        expected, command = listed(tmp_path, simulator), Hasty(tmp_path)
        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--json", "--concurrency", "4")
        zombie = command.start(*arguments)
        while simulator.answers.total() < PAIRS // 2:
            await asyncio.sleep(0.001)
        zombie.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.2 * LEASE_SECONDS)
        code, out, err = await command.run(*arguments)
        assert code == 0, err
        before = {path: path.read_bytes() for path in tmp_path.glob("harvest/send_analytics/*/*.zst")}
        zombie.send_signal(signal.SIGCONT)
        out, err = await asyncio.to_thread(zombie.communicate)
        assert zombie.returncode in (0, 3), err
        assert b"batch_lost" in err
        assert json.loads(out)["books"]["pending"] == 0
    assert captures(tmp_path) == expected
    assert {path: path.read_bytes() for path in tmp_path.glob("harvest/send_analytics/*/*.zst")} == before
