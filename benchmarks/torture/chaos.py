"""Runs one process after the other with random faults, and ends each in a random way.

``capture_target.py`` and ``service_target.py`` define the program under test: its command, how it gets pairs, and when
it has captured all of them.
"""

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.torture.check_output import CheckFailed, OutputChecker, Pair, check_books, check_secrets
from benchmarks.torture.storage_targets import BucketPlace, FolderPlace
from benchmarks.torture.torture_target import LEASE_SECONDS, start_harvester, start_stand_in, wait_until_serving
from harvester.simulator import Simulator, SimulatorConfig
from tests.support.processes import free_port

LIST_PAIRS = 20

ENDS = {0, 3, 4, 5, 130, -1, -9, -10, -15}
"""The exit codes that a process may have: not 1 (a bug) and not 2 (a usage error).

-1, -10 and -15 are signals that arrived before Python installed its handlers, or after it had removed them.
"""


class Torture:
    """One run of the test. All random choices come from one seed."""

    jumps = (0.0,)
    """The errors that a process's clock may have, in seconds."""

    last_reading = ""
    patience_seconds = 3.0
    """How long a process may take to end before it is killed."""

    def __init__(self, disk: Path, place: FolderPlace | BucketPlace, *, seed: int, kills: int) -> None:
        """Use ``disk``, which may become full, until ``kills`` processes were killed."""
        self.rng, self.seed, self.kills_wanted = random.Random(seed), seed, kills
        self.disk, self.place, self.port = disk, place, free_port()
        self.counts: Counter[str] = Counter()
        self.output = Path(tempfile.mkdtemp(prefix="output-"))
        self.keys = ["torture-key-0"]
        self.enqueued_pairs: set[Pair] = set()
        self.pairs = LIST_PAIRS * (3 * kills // 2 + 50)
        self.population = iter(Simulator(SimulatorConfig(seed=seed, pairs=self.pairs)).population)
        self.log = self.output / "responses.ndjson"  # not on the disk that becomes full
        self.checker = OutputChecker([self.log], place.parts, self.last_reading)
        self.figures: dict[str, float] = {}
        """What else the checks at the end have measured, by name."""
        self.env = {"PATH": os.environ["PATH"], "HOME": str(disk), "HARVESTER_PATIENCE_SECONDS": "1"}
        self._api: BaseProcess | None = None
        (disk / "valid.key").write_text(self.keys[-1])
        self.log.touch()

    # Defined by each program under test

    def arguments(self) -> list[str]:
        """Return the arguments of the program under test."""
        raise NotImplementedError

    async def set_up(self) -> None:
        """Prepare what the first process needs."""

    async def enqueue_pairs(self) -> None:
        """Give the program more pairs."""
        raise NotImplementedError

    async def settle_all(self) -> None:
        """Run without faults until every enqueued pair is settled. Raises ``CheckFailed``."""
        raise NotImplementedError

    def record_success(self) -> None:
        """Record that a process ended by itself, with a complete or partial result."""

    async def inject_target_fault(self) -> None:
        """Inject a fault that only this program can have."""

    # The steps of the test

    def new_pairs(self, count: int) -> list[Pair]:
        """Return pairs that were not used before."""
        return [(each.pair.campaign_id, each.pair.send_id) for each in islice(self.population, count)]

    async def restart_api(self, *, without_faults: bool = False) -> None:
        """Restart the stand-in with the newest key and other faults. This drops open connections."""
        self.stop_api()
        self._api = start_stand_in(SimulatorConfig(
            seed=self.seed, pairs=self.pairs, port=self.port, api_key=self.keys[-1], limit=10_000_000,
            latency_seconds=self.rng.choice([0.001, 0.01, 0.05]), log=self.log,
            fault_rate=0.0 if without_faults else self.rng.choice([0.0, 0.02, 0.1]),
        ))  # fmt: skip
        await asyncio.to_thread(wait_until_serving, self.port)

    def stop_api(self) -> None:
        """Kill the stand-in."""
        if self._api is not None:
            self._api.kill()
            self._api.join()

    def start(self, *arguments: str, right_clock: bool = False) -> BaseProcess:
        """Start the program under test, with its output on another disk. ``right_clock``: its clock has no error."""
        self.counts["started"] += 1
        jumps = [0.0] if right_clock else [self.rng.choice(self.jumps) for _ in range(2)]
        self.counts["wrong clocks"] += jumps[0] != 0
        output = self.output / f"output-{self.counts['started'] % 8}"
        process = start_harvester(
            self.disk, self.env | self.place.env, [*arguments] or self.arguments(), output=output, jumps=jumps
        )
        process.name = output.name
        return process

    async def wait_for_end(self, process: BaseProcess, *, timeout_seconds: float | None = None) -> None:
        """Wait for the process to end, and check its exit code and output. Raises ``CheckFailed``."""
        # Not in a thread: two threads that ask for the exit code of a process can get a wrong one.
        until = time.monotonic() + (timeout_seconds or self.patience_seconds)
        while process.is_alive() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if process.is_alive():  # it waits for a server that is unavailable
            self.kill(process)
        process.join()
        output = (self.output / process.name).read_bytes()
        if process.exitcode not in ENDS or b"Traceback" in output or b"bug_found" in output:
            raise CheckFailed(f"the process ended with {process.exitcode}: {output[-4000:].decode(errors='replace')}")
        if process.exitcode in (0, 3):
            self.record_success()

    def kill(self, process: BaseProcess) -> None:
        """Kill the process if it is alive."""
        self.counts["kills"] += process.is_alive()
        process.kill()

    async def wait_a_while(self, process: BaseProcess) -> None:
        """Wait for a random number of responses or a random time, and not longer than the process lives."""
        responses, seconds = self.rng.choice([0, self.rng.randrange(1, 2 * LIST_PAIRS)]), self.rng.uniform(0, 1.2)
        log, until = self.log, time.monotonic() + (2 if responses else seconds)
        size = log.stat().st_size + 150 * responses
        while process.is_alive() and time.monotonic() < until and not (responses and log.stat().st_size >= size):
            await asyncio.sleep(0.002)

    async def run_round(self) -> None:
        """Run one process with random faults, and end it in a random way."""
        fault = self.place.set_faults(self.rng)
        if fault:
            self.counts[fault] += 1
        if self.rng.random() < 0.7:
            await self.enqueue_pairs()
        if self.rng.random() < 0.1:
            self.fill_disk()
        process = self.start()
        await self.wait_a_while(process)
        await self.inject_fault(process)
        match self.rng.choices(["kill", "stop", "term", "wait"], [75, 7, 10, 8])[0]:
            case "kill":
                self.kill(process)
            case "stop":
                await self.suspend_past_lease(process)
            case "term":
                self.counts["terms"] += 1
                process.terminate()
        await self.wait_for_end(process)
        (self.disk / "ballast").unlink(missing_ok=True)
        self.checker.check()
        if self.rng.random() < 0.1:
            self.read_books()

    async def inject_fault(self, process: BaseProcess) -> None:
        """While the process runs, restart the API, change the key, move the clock, or do nothing."""
        match self.rng.choices(["key", "api", "clock", "more", ""], [10, 10, 10, 10, 60])[0]:
            case "key":
                self.counts["keys revoked"] += 1
                self.keys.append(f"torture-key-{len(self.keys)}")
                await self.restart_api()
                await asyncio.sleep(self.rng.uniform(0, 0.5))
                (self.disk / "valid.key").write_text(self.keys[-1])
                await self.wait_a_while(process)
            case "api":
                self.counts["api restarts"] += 1
                await self.restart_api()
            case "clock":
                self.counts["clock jumps"] += 1
                self.signal(process, signal.SIGUSR1)
                await self.wait_a_while(process)
            case "more":
                await self.inject_target_fault()

    async def suspend_past_lease(self, process: BaseProcess) -> None:
        """Suspend the process for longer than its lease, start a second one, and let the first one continue."""
        self.counts["suspended"] += process.is_alive()
        self.signal(process, signal.SIGSTOP)
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        successor = self.start()
        await self.wait_a_while(successor)
        self.signal(process, signal.SIGCONT)
        if self.rng.random() < 0.5:
            self.kill(successor)
        await self.wait_for_end(successor)

    def signal(self, process: BaseProcess, number: signal.Signals) -> None:
        """Send a signal to the process if it is alive."""
        if process.is_alive():
            os.kill(process.pid or 0, number)

    def fill_disk(self) -> None:
        """Leave at most 1 MiB free, if the test has its own small disk."""
        if not self.disk.is_mount():
            return
        self.counts["full disks"] += 1
        with (self.disk / "ballast").open("wb") as file:
            free = shutil.disk_usage(self.disk).free - self.rng.choice([0, 8, 64, 256, 1024]) * 1024
            os.posix_fallocate(file.fileno(), 0, max(1, free))

    def read_books(self) -> dict:
        """Return the books, which must always be balanced; empty before the ledger exists. Raises ``CheckFailed``."""
        printed = self.output / "books"
        process = start_harvester(
            self.disk,
            self.env,
            ["status", "--json", "-o", self.place.out],
            output=printed,
            jumps=[0.0],
        )
        process.join()
        if process.exitcode == 0:
            return check_books(printed.read_bytes())
        if b"there is no ledger" not in printed.read_bytes():
            raise CheckFailed(f"harvester status failed: {printed.read_text()}")
        return {}

    async def run(self, *, seconds: float) -> None:
        """Inject faults for at most ``seconds``, stop them, settle all pairs and check. Raises ``CheckFailed``."""
        await self.restart_api()
        await self.set_up()
        await self.enqueue_pairs()
        until = time.monotonic() + seconds
        while self.counts["kills"] < self.kills_wanted and time.monotonic() < until:
            await self.run_round()
            if self.counts["started"] % 50 == 0:
                print(f"{self.counts['kills']} killed, {len(self.enqueued_pairs)} pairs", file=sys.stderr, flush=True)
        self.place.clear_faults()
        await self.restart_api(without_faults=True)
        await self.settle_all()
        self.checker.check()
        self.read_books()
        self.checker.check_complete(self.enqueued_pairs)
        for folder in (self.disk, self.output):
            check_secrets(self.keys, folder)
