"""Killed at each durable step: nothing is lost, nothing is twice, nothing sealed is asked again.

``strace`` sends SIGKILL at the k-th call of a system call, for every k until a run ends by itself; the writes of the
ledger's pages, which only a flush makes count, are sampled. The verdict comes from outside: the input, the log of
the stand-in API, the parts, and the ledger as plain SQLite shows it at the moment of death.
"""

import asyncio
import csv
import json
import os
import shutil
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import KEY, Command, rows_of

from harvester.simulator import Simulator, SimulatorConfig

PAIRS = 6
STEPS = {"fdatasync": 1, "fsync": 1, "link": 1, "unlink": 1, "pwrite64": 8}
"""System calls of the commit path, and at how many of them one is chosen."""

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"),
    reason="strace is not installed (apt-get install strace)",
)


class Scene:
    """Six pairs of their own, one output folder, and a run that is killed and goes on."""

    def __init__(self, folder: Path, simulator: Simulator, log: Path, first: int) -> None:
        """Take the pairs from ``first`` on."""
        folder.mkdir()
        self.command = Command(folder)
        self.folder, self.log = folder, log
        self.arguments = [sys.executable, "-m", "harvester", "run", "p.csv", "--endpoint", simulator.url]
        self.pairs = {
            (each.pair.campaign_id, each.pair.send_id) for each in simulator.population[first : first + PAIRS]
        }
        with (folder / "p.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("campaign_id", "send_id"), *sorted(self.pairs)])

    async def run(self, *inject: str) -> int:
        """Run once, with what strace is told to do to it; gives the exit code. What it said is in ``said``."""
        strace = ["strace", "-f", "-o", "/dev/null", *inject] if inject else []
        process = await asyncio.create_subprocess_exec(
            *strace, *self.arguments, cwd=self.folder, env=self.command.env,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        self.said = said.decode()
        return process.returncode

    def asked(self) -> Counter:
        """How often each pair was asked so far."""
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines()]
        return Counter((line["campaign_id"], line["send_id"]) for line in lines) & Counter(
            dict.fromkeys(self.pairs, 99)
        )

    def settled(self) -> set[tuple[str, str]]:
        """The pairs that the ledger holds as settled, read by another program than ours."""
        ledger = self.folder / "harvest/.harvester/ledger.db"
        if not ledger.exists():
            return set()
        copy = self.folder / "copy"  # a look must not change what is looked at
        shutil.copytree(ledger.parent, copy, dirs_exist_ok=True)
        with sqlite3.connect(copy / "ledger.db") as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pair'").fetchone():
                return set()
            return set(connection.execute("SELECT campaign_id, send_id FROM pair WHERE state = 'settled'"))

    def parts(self) -> dict[Path, bytes]:
        """All parts there are."""
        return {path: path.read_bytes() for path in self.folder.glob("harvest/send_analytics/*/*.zst")}

    async def killed_then_complete(self, call: str, at: int, *, again: bool) -> bool:
        """Kill the run (and its successor, in recovery), complete it, judge. False when it was never killed."""
        kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={at}")
        code = await self.run(*kill)
        if code == 0:
            return False
        assert code in (-9, 137)
        if again:
            await self.run(*kill)
        await self.complete()
        return True

    async def complete(self) -> None:
        """Run to the end undisturbed, and judge."""
        settled, asked, parts = self.settled(), self.asked(), self.parts()
        assert await self.run() == 0
        more = self.asked() - asked
        assert not settled & set(more), "what was sealed was asked again"
        assert all(path.read_bytes() == data for path, data in parts.items()), "a part changed"
        captures = Counter(
            (row["campaign_id"], row["send_id"])
            for row in rows_of(self.folder / "harvest")
            if row["level"] == "capture"
        )
        assert captures == Counter(self.pairs), "a pair is missing or twice"


@needs_strace
async def test_killed_at_every_durable_step_it_goes_on(tmp_path):
    """The batch protocol holds at each flush, link and unlink, and when its recovery is killed at the same step."""
    log = tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=200 * PAIRS, limit=10_000_000, api_key=KEY, log=log)
    scenes = iter(range(200))
    killed: Counter[str] = Counter()

    async with Simulator(config) as simulator:

        async def sweep(call: str, every: int) -> None:
            at = 1
            while True:
                number = next(scenes)
                scene = Scene(tmp_path / str(number), simulator, log, number * PAIRS)
                if not await scene.killed_then_complete(call, at, again=number % 2 == 1):
                    return
                killed[call] += 1
                at += every

        async with asyncio.TaskGroup() as group:
            for call, every in STEPS.items():
                group.create_task(sweep(call, every))
    assert killed["fdatasync"] >= 5, f"the ledger's commits were not met: {killed}"
    assert killed["fsync"] >= 4, f"the part's flushes were not met: {killed}"
    assert killed["link"] == 2, f"marker and part were not met: {killed}"


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "at"),
    [
        ("fsync", "EIO", 2), ("fsync", "ENOSPC", 5), ("link", "ENOSPC", 2),
        ("fdatasync", "EIO", 5), ("pwrite64", "ENOSPC", 2), ("pwrite64", "ENOSPC", 60),
    ],
)  # fmt: skip
async def test_a_disk_that_fails_ends_the_run_and_loses_nothing(tmp_path, call, error, at):
    """A full or broken disk is exit 5 and a sentence; once it is mended the same command goes on exactly."""
    log = tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator:
        scene = Scene(tmp_path / "scene", simulator, log, 0)
        scene.command.env["HARVESTER_STORE_PATIENCE_SECONDS"] = "0"
        code = await scene.run("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={at}+")
        assert code == 5, scene.said
        assert "Traceback" not in scene.said
        assert scene.said.count("harvester: ") == 1
        await scene.complete()
