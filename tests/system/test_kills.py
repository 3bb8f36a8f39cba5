"""Killed at each durable step: nothing is lost, nothing is twice, nothing sealed is asked again.

``strace`` sends SIGKILL at the k-th call of a system call, for every k until a run ends by itself; the writes of the
ledger's pages, which only a flush makes count, are sampled. It counts in each thread by itself, so runs say nothing
and have Python's own event loop: then what is written is the marker and the part. The verdict comes from outside: the
input, the log of the stand-in API, the parts, and the ledger as plain SQLite shows it at the moment of death. What a
dead process left is taken up by this one, which has all that a start costs behind it.
"""

import asyncio
import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest

from harvester.clock import Clock, SystemClock
from harvester.commands.capture import Run, Summary
from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.settings import Settings, Workspace
from harvester.simulator import Simulator, SimulatorConfig
from harvester.sources import Input, RejectsFile
from harvester.storage import Compression, FolderSink
from tests.conftest import read_rows
from tests.support.secret_canary import KEY
from tests.support.warm_process import run_traced

PAIRS = 6
STEPS = {
    "fdatasync": (1, 5, 3), "fsync": (1, 4, 2), "write": (1, 2, 1), "link": (1, 2, 1), "unlink": (1, 2, 1),
    "pwrite64": (8, 5, 2),
}  # fmt: skip
"""System calls of the commit path: of how many one is chosen, and how many kills there must be at the least, first in
a run, then in a recovery."""

SEALED = ("link", 2)
"""Where a kill leaves a part that is sealed and has no name: the first link is the marker's."""

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"),
    reason="strace is not installed (apt-get install strace)",
)


async def gone_on(folder: Path, url: str, clock: Clock) -> Summary:
    """Let another owner, which is this process, capture what ``p.csv`` lists, to the same place by the same ledger."""
    key, out = folder / "key", folder / "harvest"
    key.write_text(KEY)
    settings = Settings(workspaces={"default": Workspace(endpoint=url, api_key_file=key)})
    async with await Ledger.open(out / ".harvester/ledger.db", clock=clock) as ledger:
        run = Run(settings, ledger=ledger, sink=FolderSink(out), compression=Compression.ZSTD)
        pairs = Input([str(folder / "p.csv")], workspaces=["default"], stdin=sys.stdin.buffer, now=clock.wall())
        return await run.capture(pairs, RejectsFile(out / ".harvester/rejects.ndjson"))


class Scene:
    """Six pairs of their own, one output folder, and a run that is killed and goes on."""

    def __init__(self, folder: Path, simulator: Simulator, log: Path, first: int) -> None:
        """Take the pairs from ``first`` on."""
        folder.mkdir()
        self.folder, self.log = folder, log
        self.env = {"BRAZE_API_KEY": KEY}
        self.url = simulator.url
        self.arguments = ["run", "p.csv", "--endpoint", simulator.url, "--log-level", "error"]
        self.pairs = {
            (each.pair.campaign_id, each.pair.send_id) for each in simulator.population[first : first + PAIRS]
        }
        with (folder / "p.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("campaign_id", "send_id"), *sorted(self.pairs)])

    async def run(self, inject: str) -> int:
        """Run once, with what strace is told to do to it; gives the exit code. What it said is in ``said``."""
        code, self.said = await asyncio.to_thread(run_traced, self.folder, self.env, *self.arguments, inject=inject)
        return code

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

    async def killed(self, call: str, at: int) -> bool:
        """Kill the run. False when it came to its end before."""
        code = await self.run(f"{call}:signal=KILL:when={at}")
        assert code in (0, -signal.SIGKILL), self.said
        return code != 0

    async def complete(self) -> None:
        """Let another process, which is ours, run to the end undisturbed, and judge."""
        settled, asked, parts = self.settled(), self.asked(), self.parts()
        done = await gone_on(self.folder, self.url, SystemClock())
        assert done.exit_code == 0
        more = self.asked() - asked
        assert not settled & set(more), "what was sealed was asked again"
        assert all(path.read_bytes() == data for path, data in parts.items()), "a part changed"
        captures = Counter(
            (row["campaign_id"], row["send_id"])
            for row in read_rows(self.folder / "harvest")
            if row["level"] == "capture"
        )
        assert captures == Counter(self.pairs), "a pair is missing or twice"


@needs_strace
@pytest.mark.parametrize("call", STEPS)
async def test_killed_at_every_durable_step_it_goes_on(tmp_path, call):
    """The batch protocol holds at each flush, write, link and unlink."""
    every, least, _ = STEPS[call]
    log = tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=100 * PAIRS, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator:
        for number in range(100):
            scene = Scene(tmp_path / str(number), simulator, log, number * PAIRS)
            if not await scene.killed(call, 1 + number * every):
                break
            await scene.complete()
    assert number >= least, f"{call} was met {number} times"


@needs_strace
@pytest.mark.parametrize("call", STEPS)
async def test_killed_at_every_durable_step_of_its_recovery_it_goes_on(tmp_path, call):
    """A run that takes up what a killed one left sealed is killed too, at each of its steps; a third one goes on."""
    every, _, least = STEPS[call]
    log = tmp_path / "answers.ndjson"
    async with Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)) as simulator:
        first = Scene(tmp_path / "first", simulator, log, 0)
        assert await first.killed(*SEALED)
        assert first.settled() == first.pairs
        assert not first.parts()
        for number in range(100):
            scene = Scene(tmp_path / str(number), simulator, log, 0)
            shutil.copytree(first.folder / "harvest", scene.folder / "harvest")
            if not await scene.killed(call, 1 + number * every):
                break
            await scene.complete()
    assert number >= least, f"{call} was met {number} times"


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "at"),
    [
        ("fsync", "EIO", 2), ("fsync", "ENOSPC", 5), ("link", "ENOSPC", 2),
        ("mkdir", "EROFS", 1), ("link", "EROFS", 1), ("link", "EACCES", 2),
        ("fdatasync", "EIO", 5), ("pwrite64", "ENOSPC", 2), ("pwrite64", "ENOSPC", 60),
    ],
)  # fmt: skip
async def test_a_disk_that_fails_ends_the_run_and_loses_nothing(tmp_path, call, error, at):
    """A full, broken or read-only disk is exit 5 and a sentence; once it is mended the same command goes on exactly."""
    log = tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator:
        scene = Scene(tmp_path / "scene", simulator, log, 0)
        scene.env["HARVESTER_PATIENCE_SECONDS"] = "0"
        code = await scene.run(f"{call}:error={error}:when={at}+")
        assert code == 5, scene.said
        assert "Traceback" not in scene.said
        assert sum(line.startswith("harvester: ") for line in scene.said.splitlines()) == 1
        await scene.complete()


class LateClock(SystemClock):
    """A clock by which every lease has run out."""

    def wall(self) -> float:
        """Epoch seconds."""
        return super().wall() + 2 * LEASE_SECONDS


async def test_a_zombie_writes_nothing(harvester, tmp_path):
    """A run that slept longer than its lease finds its batch given to another: it is fenced, and no row is twice."""
    config = SimulatorConfig(pairs=30, limit=10_000_000, api_key=KEY, latency_seconds=0.05)
    async with Simulator(config) as simulator:
        with (tmp_path / "p.csv").open("w", newline="") as file:
            rows = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
            csv.writer(file).writerows([("campaign_id", "send_id"), *rows])
        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--concurrency", "2", "--json")
        zombie = harvester.start(*arguments)
        while simulator.answers.total() < 4:
            await asyncio.sleep(0.01)
        zombie.send_signal(signal.SIGSTOP)
        done = await gone_on(tmp_path, simulator.url, LateClock())
        assert sum(done.books.captured.values()) == 30
        zombie.send_signal(signal.SIGCONT)
        out, err = await asyncio.to_thread(zombie.communicate)
    assert zombie.returncode == 0, err
    assert b"batch_lost" in err
    assert json.loads(out)["parts"] == 0
    captures = Counter(
        (row["campaign_id"], row["send_id"]) for row in read_rows(tmp_path / "harvest") if row["level"] == "capture"
    )
    assert captures == Counter(rows)


@needs_strace
async def test_what_is_flushed_is_flushed_before_others_rely_on_it(harvester, tmp_path):
    """Power may fail at any moment: a part is flushed before it gets its name, and the seal before the part exists."""
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync,fdatasync,link,unlink"]
    async with Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY)) as simulator:
        sends = "".join(f'{each.pair.campaign_id},"{each.pair.send_id}"\n' for each in simulator.population)
        (tmp_path / "p.csv").write_text("campaign_id,send_id\n" + sends)
        code, _, err = await harvester.run("run", "p.csv", "--endpoint", simulator.url, inside=strace)
        assert code == 0, err
    calls = [line for line in trace.read_text().splitlines() if "(" in line]
    (named,) = [at for at, line in enumerate(calls) if re.search(r'link\("[^"]*", "[^"]*captured_date', line)]
    temporary = calls[named].split('"')[1]
    flushes = [at for at, line in enumerate(calls) if "fsync(" in line and Path(temporary).name in line]
    seals = [at for at, line in enumerate(calls[:named]) if "fdatasync(" in line and "ledger.db" in line]
    assert flushes
    assert max(flushes) < named
    assert seals
    folder_after = [line for line in calls[named:] if "fsync(" in line and "captured_date" in line]
    stored_after = [line for line in calls[named:] if "fdatasync(" in line and "ledger.db" in line]
    assert folder_after
    assert stored_after
