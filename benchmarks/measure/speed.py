"""Speed without a rate limit: the same job on the same server, one client after the other, from start to exit.

The server returns prepared bytes: 42 rows of 28 variations and 14 days per response. It is a small Python program, or
nginx, which leaves more of the two cores to the clients. The bare loop is the simplest program that can do the job: 64
aiohttp tasks without retries, pacing or a ledger. The bare loop and harvester write rows; the alternatives write each
response unchanged, which is less work. Figures are medians of several runs. ``of the bare loop`` compares pairs per
second with the bare loop in the same turn, as a median of the turns.

The table with ``modules`` compares whole processes that capture one pair: the cost of a start and an end.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.runtime import run_process
from benchmarks.runtime.run_process import Usage

Job = Callable[[str, Path, Path], list[str]]


def bare_loop_command(url: str, pairs: Path, folder: Path) -> list[str]:
    """Return the command of the bare loop."""
    script = str(run_process.HERE / "bare_loop.py")
    return [sys.executable, script, url + "/sends/data_series", str(pairs), str(folder / "bare.ndjson")]


def harvester_command(url: str, pairs: Path, folder: Path, *, version: Path | None = None) -> list[str]:
    """Return the command of harvester with default settings, except for the maximum rate."""
    return run_process.harvester_command(url, pairs, folder / "harvest", "--max-rate", "100000", version=version)


def peer_job(name: str) -> Job:
    """Return a job that runs an alternative without a rate limit."""
    return lambda url, pairs, folder: run_process.peer_command(name, url, pairs, folder / name)


OURS: dict[str, Job] = {"bare aiohttp loop": bare_loop_command, "harvester": harvester_command}
PEERS: dict[str, Job] = {
    "Scrapy": peer_job("scrapy_crawl"),
    "dlt": peer_job("dlt_rest"),
    "Crawlee": peer_job("crawlee_http"),
    "Airbyte CDK": peer_job("airbyte_source"),
}


def run_in_turn(
    jobs: dict[str, Job], pairs: int, runs: int, *, server: str = "nginx", warm_up: int = 1
) -> dict[str, list[Usage]]:
    """Run every job in turn on one server, ``runs`` times; the first ``warm_up`` runs are not counted."""
    usage: dict[str, list[Usage]] = {name: [] for name in jobs}
    with tempfile.TemporaryDirectory() as name, run_process.start_server(run_process.SERVERS[server]) as running:
        folder = Path(name)
        list_file = run_process.write_pairs(folder / "pairs.csv", pairs)
        for _ in range(warm_up + runs):
            for client, job in jobs.items():
                usage[client].append(run_process.run_checked(job(running.url, list_file, folder)))
    return {client: each[warm_up:] for client, each in usage.items()}


def compare_jobs(jobs: dict[str, Job], pairs: int, runs: int, *, server: str) -> Iterator[dict[str, Any]]:
    """Yield a row of medians for each job; the first job is the reference."""
    usage = run_in_turn(jobs, pairs, runs, server=server)
    first = next(iter(usage.values()))
    for client, each in usage.items():
        seconds = statistics.median(one.seconds for one in each)
        ratios = [one.seconds / other.seconds for one, other in zip(first, each, strict=True)]
        yield {
            "pairs": pairs,
            "server": server,
            "client": client,
            "seconds": seconds,
            "pairs per second": pairs / seconds,
            "of the bare loop": statistics.median(ratios),
            "lowest and highest": f"{min(ratios):.2f} to {max(ratios):.2f}",
            "CPU seconds per 1,000 pairs": statistics.median(one.cpu_seconds for one in each) / pairs * 1000,
            "peak MiB": statistics.median(one.peak_mib for one in each),
        }


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the tables."""
    for row in compare_jobs(OURS | PEERS, 1000, 1 if quick else 3, server="Python"):
        yield "speed", row
    for row in compare_jobs(OURS, 1000, 1 if quick else 9, server="nginx"):
        yield "speed", row
    for pairs, runs in ((10_000, 1 if quick else 5), *(() if quick else ((100_000, 3),))):
        for server in run_process.SERVERS:
            for row in compare_jobs(OURS, pairs, runs, server=server):
                yield "speed", row
    for row in compare_one_pair(3 if quick else 21):
        yield "one_pair", row
    for row in compare_start(3 if quick else 9):
        yield "start", row
    for row in compare_memory((10_000, 20_000 if quick else 200_000)):
        yield "memory", row


def compare_start(runs: int) -> Iterator[dict[str, Any]]:
    """Compare the time of ``harvester --help`` with the import of aiohttp, its largest library."""
    ours, theirs = [sys.executable, "-m", "harvester", "--help"], [sys.executable, "-c", "import aiohttp"]
    usage = [(run_process.run_checked(ours).seconds, run_process.run_checked(theirs).seconds) for _ in range(runs + 1)][
        1:
    ]
    for command, column in (("harvester --help", 0), ('python -c "import aiohttp"', 1)):
        yield {"command": command, "milliseconds": 1000 * statistics.median(each[column] for each in usage)}


def compare_one_pair(runs: int) -> Iterator[dict[str, Any]]:
    """Compare whole processes that capture one pair, which is the cost of a start and an end."""
    usage = run_in_turn(OURS, 1, runs)
    modules = count_modules(OURS)
    first = next(iter(usage.values()))
    for client, each in usage.items():
        ratios = [one.seconds / other.seconds for one, other in zip(each, first, strict=True)]
        yield {
            "client": client,
            "milliseconds": 1000 * statistics.median(one.seconds for one in each),
            "times the bare loop": statistics.median(ratios),
            "CPU milliseconds": 1000 * statistics.median(one.cpu_seconds for one in each),
            "peak MiB": statistics.median(one.peak_mib for one in each),
            "modules": modules[client],
        }


def count_modules(jobs: dict[str, Job]) -> dict[str, int]:
    """Return how many modules each job imports."""
    counts = {}
    with tempfile.TemporaryDirectory() as name, run_process.start_server(run_process.SERVERS["nginx"]) as server:
        folder = Path(name)
        list_file = run_process.write_pairs(folder / "pairs.csv", 1)
        for client, job in jobs.items():
            python, *arguments = job(server.url, list_file, folder)
            command = [python, "-X", "importtime", *arguments]
            lines = subprocess.run(
                command, env=run_process.ENVIRONMENT, capture_output=True, text=True, check=True
            ).stderr
            counts[client] = lines.count("import time:") - 1  # the first line is the heading
    return counts


def compare_memory(sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Compare the peak memory of a long run with that of a short one."""
    peaks: dict[int, float] = {}
    for pairs in sizes:
        (usage,) = run_in_turn({"harvester": harvester_command}, pairs, 1, warm_up=0)["harvester"]
        peaks[pairs] = usage.peak_mib
        yield {"pairs": pairs, "peak MiB": usage.peak_mib, "times the first": usage.peak_mib / peaks[sizes[0]]}
