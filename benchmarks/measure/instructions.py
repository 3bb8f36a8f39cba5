"""Where the instructions of a capture go. valgrind counts them, so the load of the machine does not change the figures.

The first table has the millions of instructions for one pair: the difference between a longer and a shorter run,
divided by the difference of their pairs. The bare loop makes HTTP requests and rows too. The second table has the
instructions of a start: a whole run of one pair, and the imports of its largest libraries. Install ``valgrind`` and
``nginx`` to run this benchmark.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import speed
from benchmarks.runtime import run_process

SHORT, LONG = 500, 1500
LIBRARIES = ("sqlalchemy", "aiohttp", "pydantic", "asyncio", "click", "structlog")
_COUNT = re.compile(r"I +refs: +([\d,]+)")


def count_instructions(command: Sequence[str]) -> int:
    """Return how many instructions a process executes outside the kernel. Raises ``SystemExit`` if it fails."""
    if shutil.which("valgrind") is None:
        raise SystemExit("install valgrind to run this benchmark, for example with: apt-get install valgrind")
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    ended = subprocess.run(
        [*valgrind, *command], check=False, env=run_process.ENVIRONMENT, capture_output=True, text=True
    )
    found = _COUNT.search(ended.stderr)
    if ended.returncode or found is None:
        raise SystemExit(f"{' '.join(command)} ended with status {ended.returncode}: {ended.stderr[-500:]}")
    return int(found[1].replace(",", ""))


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the tables."""
    long = SHORT + (LONG - SHORT) // (2 if quick else 1)  # a multiple of the batches of 250
    with tempfile.TemporaryDirectory() as name, run_process.start_server(run_process.SERVERS["nginx"]) as server:
        counter = PairCounter(Path(name), server.url, long)
        for work, ours, bare in counter.compare_work():
            yield "instructions_of_a_pair", {"work": work, "harvester": ours / 1e6, "bare loop": bare / 1e6}
        for process, count in counter.count_start():
            yield "instructions_of_a_start", {"process": process, "millions": count / 1e6}


class PairCounter:
    """Counts the instructions of one pair, and of a start."""

    def __init__(self, folder: Path, url: str, long: int) -> None:
        """Compare runs of ``SHORT`` and ``long`` pairs."""
        self._folder = folder
        self._url = url
        self._long = long

    def compare_work(self) -> Iterator[tuple[str, float, float]]:
        """Yield each kind of work for one pair, with the instructions of harvester and of the bare loop."""
        ours, bare = self._compare_jobs(speed.harvester_command), self._compare_jobs(speed.bare_loop_command)
        rows, bare_rows = self._compare_scenes("build_rows"), self._compare_scenes("build_bare_rows")
        request = self._compare_scenes("request", self._url)
        ledger, compression = self._compare_scenes("settle"), self._compare_scenes("compress")
        reading = self._compare_jobs(_enqueue)
        yield "all", ours, bare
        yield "rows", rows, bare_rows
        yield "HTTP client", request, bare - bare_rows
        yield "claim and seal", ledger, 0
        yield "reading and enqueueing the list", reading, 0
        yield "compression", compression, 0
        yield "the rest: pacing, engine, event loop", ours - rows - request - ledger - reading - compression, 0

    def count_start(self) -> Iterator[tuple[str, float]]:
        """Yield the instructions of a run of one pair, and those of its largest imports."""
        list_file = run_process.write_pairs(self._folder / "one.csv", 1)
        for name, job in (("harvester run", speed.harvester_command), ("bare loop", speed.bare_loop_command)):
            command = job(self._url, list_file, self._folder)
            subprocess.run(command, env=run_process.ENVIRONMENT, check=True, capture_output=True)  # compiles modules
            yield f"{name}, one pair", count_instructions(job(self._url, list_file, self._folder))
        empty = count_instructions([sys.executable, "-c", ""])
        yield "Python", empty
        for library in LIBRARIES:
            yield f"import {library}", count_instructions([sys.executable, "-c", f"import {library}"]) - empty

    def _compare_jobs(self, job: speed.Job) -> float:
        counts = []
        for pairs in (SHORT, self._long):
            list_file = run_process.write_pairs(self._folder / "pairs.csv", pairs)
            counts.append(count_instructions(job(self._url, list_file, self._folder)))
        return self._divide(counts)

    def _compare_scenes(self, scene: str, *arguments: str) -> float:
        script = [sys.executable, str(run_process.HERE / "instructions_scenes.py"), scene]
        return self._divide([count_instructions([*script, str(pairs), *arguments]) for pairs in (SHORT, self._long)])

    def _divide(self, counts: list[int]) -> float:
        return (counts[1] - counts[0]) / (self._long - SHORT)


def _enqueue(_: str, pairs: Path, folder: Path) -> list[str]:
    """Return the command that enqueues a list in a new ledger."""
    shutil.rmtree(folder / "enqueued", ignore_errors=True)
    return run_process.harvester("enqueue", str(pairs), "-o", str(folder / "enqueued"))
