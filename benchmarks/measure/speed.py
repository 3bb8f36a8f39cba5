"""Speed without a rate limit: the same job on the same server, one client after the other, from start to exit.

The server returns prepared bytes: 42 rows of 28 variations and 14 days per response. The bare loop is the
simplest program that can do the job: 64 aiohttp tasks without any safety. The bare loop and harvester write rows; the
alternatives write each response unchanged, which is less work. Figures are medians of several runs. ``of the bare
loop`` is the median of the ratios of pairs per second within a turn.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.runtime import run_process
from benchmarks.runtime.run_process import Used

Job = Callable[[str, Path, Path], list[str]]


def bare_loop(url: str, pairs: Path, folder: Path) -> list[str]:
    """Give the command of the loop without any safety."""
    script = str(run_process.HERE / "bare_loop.py")
    return [sys.executable, script, url + "/sends/data_series", str(pairs), str(folder / "bare.ndjson")]


def harvester(url: str, pairs: Path, folder: Path) -> list[str]:
    """Give the command of the harvester, everything on."""
    return run_process.harvester(url, pairs, folder / "harvest", "--max-rate", "100000")


def peer(name: str) -> Job:
    """Give the command of a peer without a limit."""
    return lambda url, pairs, folder: run_process.peer(name, url, pairs, folder / name)


OURS: dict[str, Job] = {"bare aiohttp loop": bare_loop, "harvester": harvester}
PEERS: dict[str, Job] = {
    "Scrapy": peer("scrapy_crawl"),
    "dlt": peer("dlt_rest"),
    "Crawlee": peer("crawlee_http"),
    "Airbyte CDK": peer("airbyte_source"),
}


def turns(jobs: dict[str, Job], pairs: int, runs: int, *, warm_up: int = 1) -> dict[str, list[Used]]:
    """Run every job in turn, ``runs`` times after one that does not count."""
    used: dict[str, list[Used]] = {name: [] for name in jobs}
    with tempfile.TemporaryDirectory() as name, run_process.serving("fast_server.py") as server:
        folder = Path(name)
        listed = run_process.write_pairs(folder / "pairs.csv", pairs)
        for _ in range(warm_up + runs):
            for client, job in jobs.items():
                used[client].append(run_process.done(job(server.url, listed, folder)))
    return {client: each[warm_up:] for client, each in used.items()}


def compared(jobs: dict[str, Job], pairs: int, runs: int) -> Iterator[dict[str, Any]]:
    """Give a row of medians for each job; the first job is what the others are compared with."""
    used = turns(jobs, pairs, runs)
    first = next(iter(used.values()))
    for client, each in used.items():
        seconds = statistics.median(one.seconds for one in each)
        ratios = [one.seconds / other.seconds for one, other in zip(first, each, strict=True)]
        yield {
            "pairs": pairs,
            "client": client,
            "seconds": seconds,
            "pairs per second": pairs / seconds,
            "of the bare loop": statistics.median(ratios),
            "lowest and highest": f"{min(ratios):.2f} to {max(ratios):.2f}",
            "CPU seconds per 1,000 pairs": statistics.median(one.cpu_seconds for one in each) / pairs * 1000,
            "peak MiB": statistics.median(one.peak_mib for one in each),
        }


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the rows of the tables as they come."""
    for row in compared(OURS | PEERS, 1000, 1 if quick else 3):
        yield "speed", row
    for pairs, runs in ((10_000, 1 if quick else 9), *(() if quick else ((100_000, 3),))):
        for row in compared(OURS, pairs, runs):
            yield "speed", row
    for row in start(3 if quick else 9):
        yield "start", row
    for row in memory((10_000, 20_000 if quick else 200_000)):
        yield "memory", row


def start(runs: int) -> Iterator[dict[str, Any]]:
    """Compare the start of the command with the import of its largest library."""
    ours, theirs = [sys.executable, "-m", "harvester", "--help"], [sys.executable, "-c", "import aiohttp"]
    used = [(run_process.done(ours).seconds, run_process.done(theirs).seconds) for _ in range(runs + 1)][1:]
    for command, column in (("harvester --help", 0), ('python -c "import aiohttp"', 1)):
        yield {"command": command, "milliseconds": 1000 * statistics.median(each[column] for each in used)}


def memory(sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Compare the peak memory of one long harvest with that of a short one."""
    peaks: dict[int, float] = {}
    for pairs in sizes:
        (used,) = turns({"harvester": harvester}, pairs, 1, warm_up=0)["harvester"]
        peaks[pairs] = used.peak_mib
        yield {"pairs": pairs, "peak MiB": used.peak_mib, "times the first": used.peak_mib / peaks[sizes[0]]}
