"""A whole-system torture run: everything at once, at random, by seed; the verdict comes from outside (``verdict.py``).

``python benchmarks/torture.py [--kills 1000] [--seed N] [--store folder|moto]``

Faults of the API, a stand-in that goes away, keys revoked and rotated, a disk that fills up, a store that cuts
connections, clocks that jump, SIGKILL, SIGTERM, and SIGSTOP for longer than a lease while a successor takes over. A
lease lasts a second here, so that this takes minutes and not hours. It prints its seed, and ``--seed`` draws the same
again; how processes are scheduled is the kernel's to choose.

The process under test, the way pairs get in and the place of the parts are ``Torture.command``, ``Torture.hand_in``
and a ``Place``.
"""

import argparse
import asyncio
import csv
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from cutter import Cutter  # noqa: E402 - found by the path above
from servers import Bucket, free_port, moto  # noqa: E402 - found by the path above
from verdict import Pair, Parts, Witness, Wrong, balanced, secret_found  # noqa: E402 - found by the path above

from harvester.simulator import Simulator, SimulatorConfig  # noqa: E402 - found by the path above

LIST_PAIRS = 40
LEASE_SECONDS = 1.0
DISK_BYTES = 256 << 20
HARVESTER = f"""
import sys, time
import harvester.ledger.ledger as ledger
ledger.LEASE_SECONDS = {LEASE_SECONDS}
jump, told = float(sys.argv.pop(1)), time.time
time.time = lambda: told() + jump
from harvester.cli import main
main()
"""
"""The command, with short leases and a clock that is wrong by the first argument's seconds."""

ENDS = {0, 3, 4, 5, 130, -9, -15}
"""How a tortured process may end: never with a bug (1) or a usage error (2). -15 is a SIGTERM before it began."""


class Folder:
    """Parts on the small disk."""

    def __init__(self, disk: Path) -> None:
        """Lie in the folder that is the default."""
        self.out, self.env = "harvest", {}
        self._top = disk / "harvest"

    def parts(self) -> Parts:
        """Read what any reader finds."""
        found = self._top.glob("send_analytics/*/*.zst")
        return {str(path.relative_to(self._top)): path.read_bytes() for path in found}

    def trouble(self, _draw: random.Random) -> str:
        """Have none of its own: a disk's trouble is that it fills up."""
        return ""


class Lake:
    """Parts in a bucket behind a proxy that cuts."""

    def __init__(self, bucket: Bucket, cutter: Cutter) -> None:
        """Reach the bucket through ``cutter``, and past it for the verdict."""
        self.out, self.env = f"{bucket.url}/harvest", bucket.through(cutter.port)
        self._bucket, self._cutter = bucket, cutter

    def parts(self) -> Parts:
        """Read what any reader finds."""
        return {name: data for name, data in self._bucket.objects().items() if name.endswith(".zst")}

    def trouble(self, draw: random.Random) -> str:
        """Be away, or cut some connections, or be well; what is drawn holds for one process."""
        away, sometimes = draw.random() < 0.15, draw.random() < 0.5
        chance = random.Random(draw.random())

        def fate(_method: str, _target: str) -> str | None:
            if away or (sometimes and chance.random() < 0.2):
                return "before" if away else chance.choice(["before", "within", "after"])
            return None

        self._cutter.fate = fate
        return "store away" if away else "store cuts" if sometimes else ""

    def heal(self) -> None:
        """Be well."""
        self._cutter.fate = lambda _method, _target: None


def stand_in(config: SimulatorConfig) -> None:
    """Serve until killed; a process of its own."""

    async def serve() -> None:
        async with Simulator(config):
            await asyncio.Event().wait()

    asyncio.run(serve())


class Torture:
    """One run; everything that is drawn is drawn from one seed."""

    def __init__(self, disk: Path, place: Folder | Lake, *, seed: int, kills: int) -> None:
        """Work on ``disk``, which may be filled up, until ``kills`` processes were killed."""
        self.draw, self.seed, self.kills_wanted = random.Random(seed), seed, kills
        self.disk, self.place, self.port = disk, place, free_port()
        self.done: Counter[str] = Counter()
        self.said = Path(tempfile.mkdtemp(prefix="said-"))
        self.keys = ["torture-key-0"]
        self.lists: list[Path] = []
        self.handed_in: set[Pair] = set()
        self.population = iter(Simulator(SimulatorConfig(seed=seed, pairs=LIST_PAIRS * (3 * kills + 50))).population)
        self.witness = Witness(disk / "answers.ndjson", place.parts)
        self._api: multiprocessing.process.BaseProcess | None = None
        (disk / "valid.key").write_text(self.keys[-1])
        (disk / "answers.ndjson").touch()

    # What may be replaced

    def command(self) -> list[str]:
        """Give the process under test: a run that takes up all lists which may not have been read to their end."""
        jump = self.draw.choice([0.0, 0.0, 0.0, 3600.0, -3600.0, 86_400.0, -86_400.0])
        self.done["clock jumps"] += jump != 0
        options = ["--endpoint", f"http://127.0.0.1:{self.port}", "--api-key-file", "valid.key", "--json",
                   "--concurrency", str(self.draw.choice([2, 8, 64])), "--max-deferrals", "0"]  # fmt: skip
        lists = [path.name for path in self.lists]
        return [sys.executable, "-c", HARVESTER, str(jump), "run", *lists, "-o", self.place.out, *options]

    def hand_in(self) -> None:
        """Write another list of pairs for the next process to read."""
        path = self.disk / f"list-{self.done['lists']}.csv"
        self.done["lists"] += 1
        pairs = [(each.pair.campaign_id, each.pair.send_id) for each in islice(self.population, LIST_PAIRS)]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("campaign_id", "send_id"), *pairs])
        self.lists.append(path)
        self.handed_in |= set(pairs)

    # What is done to it

    def api(self, *, well: bool = False) -> None:
        """Restart the stand-in, with the newest key and other faults: whoever is connected is cut off."""
        self.api_away()
        config = SimulatorConfig(
            seed=self.seed, pairs=LIST_PAIRS * (3 * self.kills_wanted + 50), port=self.port, api_key=self.keys[-1],
            limit=10_000_000, latency_seconds=self.draw.choice([0.001, 0.01, 0.05]), log=self.disk / "answers.ndjson",
            fault_rate=0.0 if well else self.draw.choice([0.0, 0.02, 0.1]),
        )  # fmt: skip
        self._api = multiprocessing.get_context("spawn").Process(target=stand_in, args=(config,), daemon=True)
        self._api.start()
        listening(self.port)

    def api_away(self) -> None:
        """Kill the stand-in."""
        if self._api is not None:
            self._api.kill()
            self._api.join()

    def start(self) -> subprocess.Popen:
        """Begin the process under test; what it says goes to another disk."""
        self.done["started"] += 1
        said, out = (self.said / f"{name}-{self.done['started'] % 8}" for name in ("said", "out"))
        with out.open("wb") as out_file, said.open("wb") as said_file:
            env = {"PATH": os.environ["PATH"], "HOME": str(self.disk), "HARVESTER_STORE_PATIENCE_SECONDS": "1"}
            env["PYTHONPATH"] = str(Path(__file__).parents[1])
            return subprocess.Popen(
                self.command(), cwd=self.disk, env=env | self.place.env, stdout=out_file, stderr=said_file
            )

    async def ended(self, process: subprocess.Popen, *, within: float = 3.0) -> None:
        """Wait for the end, and judge how it ended."""
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, within)
        if process.poll() is None:  # it waits for something that is away for longer than we have time
            self.done["kills"] += 1
            process.kill()
        code = process.wait()
        said = b"".join(path.read_bytes() for path in self.said.glob("said-*"))
        if code not in ENDS or b"Traceback" in said:
            raise Wrong(f"ended with {code}: {said[-2000:].decode(errors='replace')}")
        if code in (0, 3):
            self.lists.clear()

    async def some_time(self, process: subprocess.Popen) -> None:
        """Wait for some answers, or for some time, whichever is drawn; or for the process's end."""
        answers, seconds = self.draw.choice([0, self.draw.randrange(1, 2 * LIST_PAIRS)]), self.draw.uniform(0, 1.2)
        log, until = self.disk / "answers.ndjson", time.monotonic() + (4 if answers else seconds)
        size = log.stat().st_size + 150 * answers
        while process.poll() is None and time.monotonic() < until and not (answers and log.stat().st_size >= size):
            await asyncio.sleep(0.001)

    async def round(self) -> None:
        """Let one process live under what was drawn, and end it somehow."""
        trouble = self.place.trouble(self.draw)
        if trouble:
            self.done[trouble] += 1
        if self.draw.random() < 0.7 or not self.lists:
            self.hand_in()
        if self.draw.random() < 0.1:
            self.fill_disk()
        process = self.start()
        await self.some_time(process)
        await self.meddle()
        match self.draw.choices(["kill", "stop", "term", "wait"], [75, 7, 10, 8])[0]:
            case "kill":
                self.done["kills"] += process.poll() is None
                process.kill()
            case "stop":
                await self.stopped_too_long(process)
            case "term":
                self.done["terms"] += 1
                process.terminate()
        await self.ended(process)
        (self.disk / "ballast").unlink(missing_ok=True)
        self.witness.look()
        if self.draw.random() < 0.2:
            self.look_at_books()

    async def meddle(self) -> None:
        """While it runs: the API goes away and comes back, or keys change, or nothing."""
        chance = self.draw.random()
        if chance < 0.1:
            self.done["keys revoked"] += 1
            self.keys.append(f"torture-key-{len(self.keys)}")
            self.api()
            await asyncio.sleep(self.draw.uniform(0, 0.5))
            (self.disk / "valid.key").write_text(self.keys[-1])
        elif chance < 0.2:
            self.done["api restarts"] += 1
            self.api()

    async def stopped_too_long(self, process: subprocess.Popen) -> None:
        """Stop it for longer than its lease, let a successor take over, and let the zombie go on."""
        self.done["zombies"] += process.poll() is None
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        successor = self.start()
        await self.some_time(successor)
        process.send_signal(signal.SIGCONT)
        if self.draw.random() < 0.5:
            self.done["kills"] += successor.poll() is None
            successor.kill()
        await self.ended(successor)

    def fill_disk(self) -> None:
        """Leave only some kilobytes, where the disk is a small one of our own."""
        if not self.disk.is_mount():
            return
        self.done["full disks"] += 1
        with (self.disk / "ballast").open("wb") as file:
            free = shutil.disk_usage(self.disk).free - self.draw.choice([0, 8, 64, 256, 1024]) * 1024
            os.posix_fallocate(file.fileno(), 0, max(1, free))

    def look_at_books(self) -> None:
        """Ask for the books, as anyone may at any moment."""
        command = [sys.executable, "-m", "harvester", "status", "--json", "-o", self.place.out]
        env = os.environ | self.place.env | {"PYTHONPATH": str(Path(__file__).parents[1])}
        asked = subprocess.run(command, cwd=self.disk, env=env, capture_output=True, check=False)
        if asked.returncode == 0:
            balanced(asked.stdout)
        elif b"there is no ledger" not in asked.stderr:
            raise Wrong(f"no books: {asked.stderr.decode()}")

    async def whole(self) -> None:
        """Torture, then heal everything and let it come to its end. Raises ``Wrong``."""
        self.api()
        while self.done["kills"] < self.kills_wanted:
            await self.round()
        if isinstance(self.place, Lake):
            self.place.heal()
        self.api(well=True)
        for _ in range(20):
            process = self.start()
            await self.ended(process, within=120.0)
            if process.returncode == 0:
                break
        self.witness.look()
        self.look_at_books()
        self.witness.all_there(self.handed_in)
        secret_found(self.keys, self.disk)
        secret_found(self.keys, self.said)


def listening(port: int) -> None:
    """Wait for the stand-in."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)


async def tortured(given: argparse.Namespace, disk: Path) -> Torture:
    """Put the place together, and torture."""
    with ExitStack() as stack:
        bucket = stack.enter_context(moto(disk)) if given.store == "moto" else None
        async with Cutter(bucket.port if bucket else 0) as cutter:
            place = Lake(bucket, cutter) if bucket else Folder(disk)
            torture = Torture(disk, place, seed=given.seed, kills=given.kills)
            try:
                await torture.whole()
            finally:
                torture.api_away()
                shutil.rmtree(torture.said)
    return torture


def small_disk(given: argparse.Namespace) -> int:
    """Do it again on a small disk of our own, in name spaces that need no right; gives the exit code."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        own = [sys.executable, __file__, "--disk", folder, "--seed", str(given.seed)]
        own += ["--kills", str(given.kills), "--store", given.store]
        mounted = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs {folder} && exec "$@"'
        unshare = ["unshare", "-Urm", "sh", "-c", mounted, "sh"]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
            print("this kernel gives us no disk of our own: no disk will be full")
            return subprocess.run(own, check=False).returncode
        return subprocess.run([*unshare, *own], check=False).returncode


def main() -> None:
    """Torture once, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="go on until so many processes were killed")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--store", choices=["folder", "moto"], default="folder")
    parser.add_argument("--disk", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.disk is None:
        raise SystemExit(small_disk(given))
    print(f"seed {given.seed}", flush=True)
    try:
        torture = asyncio.run(tortured(given, given.disk))
    except Wrong as wrong:
        kept = Path(tempfile.mkdtemp(prefix=f"torture-{given.seed}-"))
        shutil.copytree(given.disk, kept, dirs_exist_ok=True)
        raise SystemExit(f"WRONG: {wrong}\nkept in {kept}; again with --seed {given.seed}") from None
    print(f"{torture.witness.captured} pairs, none missing, none twice, {torture.witness.answers} calls")
    print(", ".join(f"{count} {what}" for what, count in sorted(torture.done.items())))


if __name__ == "__main__":
    main()
