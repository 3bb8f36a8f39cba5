"""SIGKILL at each durable step: no row is lost or duplicated, and sealed readings are not requested again.

``strace`` sends SIGKILL at the k-th call of a system call, for every k until a run completes. Writes of the ledger's
pages are only sampled, since only a flush makes them durable. strace counts per thread, so runs use few threads, log
nothing and print one line; then only the marker, the part and this line are written. The verdict uses the input, the
stand-in API's log, the parts, and the ledger as plain SQLite reads it after the kill. This process recovers what a
killed run left, to save its start time.
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
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from harvester.clock import Clock, SystemClock
from harvester.commands.capture import Run
from harvester.commands.summary import Summary
from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.ledger.steps import get_newest_schema
from harvester.settings import Settings, Workspace
from harvester.simulator import Simulator, SimulatorConfig
from harvester.sources import Input, RejectsFile
from harvester.storage import Compression, FolderSink
from tests.conftest import read_rows
from tests.support.secret_canary import KEY
from tests.support.warm_process import run_traced, run_with_fault

PAIRS = 6
STEPS = {
    "fdatasync": (1, 5, 3), "fsync": (1, 4, 2), "write": (1, 2, 1), "link": (1, 2, 1), "unlink": (1, 2, 1),
    "pwrite64": (40, 3, 1),
}  # fmt: skip
"""Calls of the commit path: the step between kills, and the least number of kills in a run and in a recovery."""

SEALED = ("link", 2)
"""A kill here leaves a sealed part without its final name; the first link creates the marker."""

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"),
    reason="strace is not installed (apt-get install strace)",
)


async def complete_run(folder: Path, url: str, clock: Clock) -> Summary:
    """Capture the pairs of ``p.csv`` in this process, as another owner of the same ledger and folder."""
    key, out = folder / "key", folder / "harvest"
    key.write_text(KEY)
    settings = Settings(workspaces={"default": Workspace(endpoint=url, api_key_file=key)})
    async with await Ledger.open(out / ".harvester/ledger.db", clock=clock) as ledger:
        run = Run(settings, ledger=ledger, sink=FolderSink(out), compression=Compression.ZSTD)
        pairs = Input([str(folder / "p.csv")], workspaces=["default"], stdin=sys.stdin.buffer, now=clock.wall())
        return await run.capture(pairs, RejectsFile(out / ".harvester/rejects.ndjson"))


class KilledRun:
    """A run of six pairs in a folder of its own, which is killed and then completed."""

    def __init__(self, folder: Path, simulator: Simulator, log: Path, first: int) -> None:
        """Use the six pairs that start at ``first``."""
        folder.mkdir()
        self.folder, self.log = folder, log
        self.env = {"BRAZE_API_KEY": KEY}
        self.url = simulator.url
        self.arguments = ["run", "p.csv", "--endpoint", simulator.url, "--log-level", "error", "--json"]
        self.pairs = {
            (each.pair.campaign_id, each.pair.send_id) for each in simulator.population[first : first + PAIRS]
        }
        with (folder / "p.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("campaign_id", "send_id"), *sorted(self.pairs)])

    async def run(self, inject: str) -> int:
        """Run once under strace with this fault, save the output, and return the exit code."""
        start = partial(run_with_fault, self.folder, self.env, *self.arguments, inject=inject)
        code, self.output = await asyncio.to_thread(start)
        return code

    def count_requests(self) -> Counter:
        """Count the requests of each pair so far."""
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines()]
        return Counter((line["campaign_id"], line["send_id"]) for line in lines) & Counter(
            dict.fromkeys(self.pairs, 99)
        )

    def list_settled(self) -> set[tuple[str, str]]:
        """Read the settled pairs from the ledger with SQLite itself."""
        ledger = self.folder / "harvest/.harvester/ledger.db"
        if not ledger.exists():
            return set()
        copy = self.folder / "copy"  # reading the original could change it
        shutil.copytree(ledger.parent, copy, dirs_exist_ok=True)
        with sqlite3.connect(copy / "ledger.db") as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pair'").fetchone():
                return set()
            return set(connection.execute("SELECT campaign_id, send_id FROM pair WHERE state = 'settled'"))

    def read_parts(self) -> dict[Path, bytes]:
        """Read all parts."""
        return {path: path.read_bytes() for path in self.folder.glob("harvest/send_analytics/*/*.zst")}

    async def kill_at(self, call: str, at: int) -> bool:
        """Kill the run at a system call. Return False if the run completed first."""
        code = await self.run(f"{call}:signal=KILL:when={at}")
        assert code in (0, -signal.SIGKILL), self.output
        return code != 0

    async def complete(self) -> None:
        """Complete the run in this process, and check the requests, parts and rows."""
        settled, requests_before, parts = self.list_settled(), self.count_requests(), self.read_parts()
        done = await complete_run(self.folder, self.url, SystemClock())
        assert done.exit_code == 0
        repeated = self.count_requests() - requests_before
        assert not settled & set(repeated), "a sealed reading was requested again"
        assert all(path.read_bytes() == data for path, data in parts.items()), "a part changed"
        captures = Counter(
            (row["campaign_id"], row["send_id"])
            for row in read_rows(self.folder / "harvest")
            if row["level"] == "capture"
        )
        assert captures == Counter(self.pairs), "a pair is missing or duplicated"


@needs_strace
@pytest.mark.parametrize(
    "call", [pytest.param(each, marks=pytest.mark.long) if each in ("fsync", "pwrite64") else each for each in STEPS]
)
async def test_a_run_killed_at_any_durable_step_completes_later(tmp_path, call):
    """A run that is killed at any flush, write, link or unlink is completed by the next run."""
    every, least, _ = STEPS[call]
    log = tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=100 * PAIRS, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator:
        for number in range(100):
            killed_run = KilledRun(tmp_path / str(number), simulator, log, number * PAIRS)
            if not await killed_run.kill_at(call, 1 + number * every):
                break
            await killed_run.complete()
    assert number >= least, f"{call} was called {number} times"


@needs_strace
@pytest.mark.long
@pytest.mark.parametrize("call", STEPS)
async def test_a_recovery_killed_at_any_durable_step_completes_later(tmp_path, call):
    """The first run is killed between seal and upload, the second during recovery, and the third completes."""
    every, _, least = STEPS[call]
    log = tmp_path / "answers.ndjson"
    async with Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)) as simulator:
        first = KilledRun(tmp_path / "first", simulator, log, 0)
        assert await first.kill_at(*SEALED)
        assert first.list_settled() == first.pairs
        assert not first.read_parts()
        for number in range(100):
            killed_run = KilledRun(tmp_path / str(number), simulator, log, 0)
            shutil.copytree(first.folder / "harvest", killed_run.folder / "harvest")
            if not await killed_run.kill_at(call, 1 + number * every):
                break
            await killed_run.complete()
    assert number >= least, f"{call} was called {number} times"


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "at"),
    [
        ("fsync", "EIO", 2), ("fsync", "ENOSPC", 5), ("link", "ENOSPC", 2),
        ("mkdir", "EROFS", 1), ("link", "EROFS", 1), ("link", "EACCES", 2),
        ("fdatasync", "EIO", 5), ("pwrite64", "ENOSPC", 2), ("pwrite64", "ENOSPC", 60),
    ],
)  # fmt: skip
async def test_a_failing_disk_ends_the_run_with_exit_code_5_and_loses_nothing(tmp_path, call, error, at):
    """The error is one line. After the repair, the same command completes the run."""
    log = tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator:
        killed_run = KilledRun(tmp_path / "scene", simulator, log, 0)
        killed_run.env["HARVESTER_PATIENCE_SECONDS"] = "0"
        code = await killed_run.run(f"{call}:error={error}:when={at}+")
        assert code == 5, killed_run.output
        assert "Traceback" not in killed_run.output
        assert sum(line.startswith("harvester: ") for line in killed_run.output.splitlines()) == 1
        await killed_run.complete()


@needs_strace
async def test_a_migration_that_is_killed_changes_nothing_or_everything(tmp_path):
    """The ledger has the old or the new schema, and the same content, whatever was written before the kill."""
    sql = (Path(__file__).parent.parent / "ledgers" / "schema-5.sql").read_text()
    newest, found = get_newest_schema(), []
    for written in range(25, 1000, 30):
        path = tmp_path / f"{written}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)
        migrate = partial(run_with_fault, tmp_path, {}, "ledger", "migrate", "--state", path.name)
        code, output = await asyncio.to_thread(migrate, inject=f"pwrite64:signal=KILL:when={written}")
        assert code in (0, -signal.SIGKILL), output
        with closing(sqlite3.connect(path)) as connection:
            found += connection.execute("SELECT schema_version FROM about").fetchone()
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            assert (await ledger.reports.get_books()).accepted == 4
            assert await ledger.reports.find_wrong_counts() == []
        if code == 0:
            break
    assert set(found) == {5, newest}
    assert found == sorted(found)


class LateClock(SystemClock):
    """A clock that is ahead by twice the lease time, so that every lease has expired."""

    def wall(self) -> float:
        """Return epoch seconds."""
        return super().wall() + 2 * LEASE_SECONDS


async def test_a_zombie_writes_nothing(harvester, tmp_path):
    """A run that was stopped for longer than its lease loses its batch to another process and duplicates no row."""
    config = SimulatorConfig(pairs=30, limit=10_000_000, api_key=KEY, latency_seconds=0.05)
    async with Simulator(config) as simulator:
        with (tmp_path / "p.csv").open("w", newline="") as file:
            rows = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
            csv.writer(file).writerows([("campaign_id", "send_id"), *rows])
        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--concurrency", "2", "--json")
        zombie = harvester.start_warm(*arguments)
        while simulator.responses.total() < 4:
            await asyncio.sleep(0.01)
        zombie.send_signal(signal.SIGSTOP)
        done = await complete_run(tmp_path, simulator.url, LateClock())
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
async def test_each_flush_happens_before_the_step_that_relies_on_it(tmp_path):
    """A part is flushed before it gets its name, and the seal before the part exists."""
    trace = tmp_path / "trace"
    strace = ("-y", "-o", str(trace), "-e", "trace=fsync,fdatasync,link,unlink")
    async with Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY)) as simulator:
        sends = "".join(f'{each.pair.campaign_id},"{each.pair.send_id}"\n' for each in simulator.population)
        (tmp_path / "p.csv").write_text("campaign_id,send_id\n" + sends)
        arguments = ("run", "p.csv", "--endpoint", simulator.url)
        start = partial(run_traced, tmp_path, {"BRAZE_API_KEY": KEY}, *arguments, strace=strace)
        code, output = await asyncio.to_thread(start)
        assert code == 0, output
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
