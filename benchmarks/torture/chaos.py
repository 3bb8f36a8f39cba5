"""The faults of a torture run: one process after the other runs under what was drawn, and is ended in some way.

``capture_target.py`` and ``service_target.py`` say which program is tortured, how it gets pairs and when all is done.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.torture.check_output import Pair, Witness, Wrong, balanced, secret_found
from benchmarks.torture.storage_targets import Folder, Lake
from benchmarks.torture.torture_target import LEASE_SECONDS, begin, stand_in
from harvester.simulator import Simulator, SimulatorConfig
from tests.support.processes import free_port

LIST_PAIRS = 20

ENDS = {0, 3, 4, 5, 130, -9, -10, -15}
"""How a tortured process may end: never with a bug (1) or a usage error (2).

-10 and -15 are signals that came before it began.
"""


class Torture:
    """One run; everything that is drawn is drawn from one seed."""

    jumps = (0.0,)
    """By how many seconds a clock may be wrong."""

    last_reading = ""
    patience_seconds = 3.0
    """For how long a process may take to come to its end."""

    def __init__(self, disk: Path, place: Folder | Lake, *, seed: int, kills: int) -> None:
        """Work on ``disk``, which may be filled up, until ``kills`` processes were killed."""
        self.draw, self.seed, self.kills_wanted = random.Random(seed), seed, kills
        self.disk, self.place, self.port = disk, place, free_port()
        self.done: Counter[str] = Counter()
        self.output = Path(tempfile.mkdtemp(prefix="output-"))
        self.keys = ["torture-key-0"]
        self.enqueued_pairs: set[Pair] = set()
        self.pairs = LIST_PAIRS * (3 * kills // 2 + 50)
        self.population = iter(Simulator(SimulatorConfig(seed=seed, pairs=self.pairs)).population)
        self.witness = Witness(disk / "answers.ndjson", place.parts, self.last_reading)
        self._api: BaseProcess | None = None
        (disk / "valid.key").write_text(self.keys[-1])
        (disk / "answers.ndjson").touch()

    # What is for each kind of process

    def arguments(self) -> list[str]:
        """Give the command under test."""
        raise NotImplementedError

    async def set_up(self) -> None:
        """Make ready what the first process needs."""

    async def hand_in(self) -> None:
        """Hand more pairs in."""
        raise NotImplementedError

    async def at_rest(self) -> None:
        """Run until every enqueued pair is settled, without faults. Raises ``Wrong``."""
        raise NotImplementedError

    def ended_well(self) -> None:
        """Take note that a process came to its end by itself, complete or partial."""

    async def meddle_more(self) -> None:
        """Do what harm is possible beside what any harvester meets."""

    # What is done

    def new_pairs(self, count: int) -> list[Pair]:
        """Draw new pairs."""
        return [(each.pair.campaign_id, each.pair.send_id) for each in islice(self.population, count)]

    def api(self, *, well: bool = False) -> None:
        """Restart the stand-in, with the newest key and other faults: open connections are cut."""
        self.api_away()
        self._api = stand_in(SimulatorConfig(
            seed=self.seed, pairs=self.pairs, port=self.port, api_key=self.keys[-1], limit=10_000_000,
            latency_seconds=self.draw.choice([0.001, 0.01, 0.05]), log=self.disk / "answers.ndjson",
            fault_rate=0.0 if well else self.draw.choice([0.0, 0.02, 0.1]),
        ))  # fmt: skip
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)

    def api_away(self) -> None:
        """Kill the stand-in."""
        if self._api is not None:
            self._api.kill()
            self._api.join()

    def start(self, *arguments: str, right: bool = False) -> BaseProcess:
        """Start the process under test; its output goes to another disk. ``right``: its clock is right."""
        self.done["started"] += 1
        jumps = [0.0] if right else [self.draw.choice(self.jumps) for _ in range(2)]
        self.done["wrong clocks"] += jumps[0] != 0
        env = {"PATH": os.environ["PATH"], "HOME": str(self.disk), "HARVESTER_PATIENCE_SECONDS": "1"}
        output = self.output / f"output-{self.done['started'] % 8}"
        return begin(self.disk, env | self.place.env, [*arguments] or self.arguments(), output=output, jumps=jumps)

    async def ended(self, process: BaseProcess, *, within: float | None = None) -> None:
        """Wait for the end, and judge how it ended."""
        await asyncio.to_thread(process.join, within or self.patience_seconds)
        if process.is_alive():  # it waits for something that is away for longer than we have time
            self.kill(process)
        process.join()
        output = b"".join(path.read_bytes() for path in self.output.glob("output-*"))
        if process.exitcode not in ENDS or b"Traceback" in output:
            raise Wrong(f"ended with {process.exitcode}: {output[-2000:].decode(errors='replace')}")
        if process.exitcode in (0, 3):
            self.ended_well()

    def kill(self, process: BaseProcess) -> None:
        """Kill it, if it lives."""
        self.done["kills"] += process.is_alive()
        process.kill()

    async def some_time(self, process: BaseProcess) -> None:
        """Wait for some answers, or for some time, whichever is drawn; or for the process's end."""
        answers, seconds = self.draw.choice([0, self.draw.randrange(1, 2 * LIST_PAIRS)]), self.draw.uniform(0, 1.2)
        log, until = self.disk / "answers.ndjson", time.monotonic() + (2 if answers else seconds)
        size = log.stat().st_size + 150 * answers
        while process.is_alive() and time.monotonic() < until and not (answers and log.stat().st_size >= size):
            await asyncio.sleep(0.002)

    async def round(self) -> None:
        """Let one process live under what was drawn, and end it somehow."""
        trouble = self.place.trouble(self.draw)
        if trouble:
            self.done[trouble] += 1
        if self.draw.random() < 0.7:
            await self.hand_in()
        if self.draw.random() < 0.1:
            self.fill_disk()
        process = self.start()
        await self.some_time(process)
        await self.meddle(process)
        match self.draw.choices(["kill", "stop", "term", "wait"], [75, 7, 10, 8])[0]:
            case "kill":
                self.kill(process)
            case "stop":
                await self.stopped_too_long(process)
            case "term":
                self.done["terms"] += 1
                process.terminate()
        await self.ended(process)
        (self.disk / "ballast").unlink(missing_ok=True)
        self.witness.check()
        if self.draw.random() < 0.1:
            self.books()

    async def meddle(self, process: BaseProcess) -> None:
        """While it runs: the API goes away and comes back, or keys change, or the clock jumps, or nothing."""
        match self.draw.choices(["key", "api", "clock", "more", ""], [10, 10, 10, 10, 60])[0]:
            case "key":
                self.done["keys revoked"] += 1
                self.keys.append(f"torture-key-{len(self.keys)}")
                self.api()
                await asyncio.sleep(self.draw.uniform(0, 0.5))
                (self.disk / "valid.key").write_text(self.keys[-1])
                await self.some_time(process)
            case "api":
                self.done["api restarts"] += 1
                self.api()
            case "clock":
                self.done["clock jumps"] += 1
                self.signal(process, signal.SIGUSR1)
                await self.some_time(process)
            case "more":
                await self.meddle_more()

    async def stopped_too_long(self, process: BaseProcess) -> None:
        """Stop it for longer than its lease, let a successor take over, and let the zombie continue."""
        self.done["zombies"] += process.is_alive()
        self.signal(process, signal.SIGSTOP)
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        successor = self.start()
        await self.some_time(successor)
        self.signal(process, signal.SIGCONT)
        if self.draw.random() < 0.5:
            self.kill(successor)
        await self.ended(successor)

    def signal(self, process: BaseProcess, number: signal.Signals) -> None:
        """Signal it, if it lives."""
        if process.is_alive():
            os.kill(process.pid or 0, number)

    def fill_disk(self) -> None:
        """Leave only some kilobytes, where the disk is a small one of our own."""
        if not self.disk.is_mount():
            return
        self.done["full disks"] += 1
        with (self.disk / "ballast").open("wb") as file:
            free = shutil.disk_usage(self.disk).free - self.draw.choice([0, 8, 64, 256, 1024]) * 1024
            os.posix_fallocate(file.fileno(), 0, max(1, free))

    def books(self) -> dict:
        """Read the books, which must balance at any moment. They are empty before the ledger exists."""
        printed = self.output / "books"
        process = begin(
            self.disk,
            {"PATH": os.environ["PATH"]},
            ["status", "--json", "-o", self.place.out],
            output=printed,
            jumps=[0.0],
        )
        process.join()
        if process.exitcode == 0:
            return balanced(printed.read_bytes())
        if b"there is no ledger" not in printed.read_bytes():
            raise Wrong(f"no books: {printed.read_text()}")
        return {}

    async def whole(self, *, seconds: float) -> None:
        """Torture for at most so long, then heal everything and let it come to its end. Raises ``Wrong``."""
        self.api()
        await self.set_up()
        await self.hand_in()
        until = time.monotonic() + seconds
        while self.done["kills"] < self.kills_wanted and time.monotonic() < until:
            await self.round()
            if self.done["started"] % 50 == 0:
                print(f"{self.done['kills']} killed, {len(self.enqueued_pairs)} pairs", file=sys.stderr, flush=True)
        self.place.heal()
        self.api(well=True)
        await self.at_rest()
        self.witness.check()
        self.books()
        self.witness.all_there(self.enqueued_pairs)
        for folder in (self.disk, self.output):
            secret_found(self.keys, folder)
