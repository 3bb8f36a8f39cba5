"""The speed of two processes on one ledger compared with one: the same pairs on the same server, in turn.

The pairs are in the ledger before the clock starts. The server runs on the same machine. With the Python server, two
cores limit the gain, because one process and the server already use most of both. nginx needs much less.
"""

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.runtime import run_process


def run_processes(
    url: str, pairs: Path, folder: Path, count: int, *, version: Path | None = None
) -> tuple[float, float]:
    """Run ``count`` processes on one ledger. Returns the seconds until the last one ends, and all CPU seconds."""
    out = folder / "harvest"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(
        run_process.harvester("enqueue", str(pairs), "-o", str(out), version=version),
        env=run_process.ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = ("-o", str(out), "--endpoint", url, "--log-level", "error", "--max-rate", "100000")
    run = run_process.harvester("run", *options, version=version)
    usage = run_process.run(*[run] * count)
    if any(each.status for each in usage):
        raise SystemExit(f"the processes ended with {[each.status for each in usage]}")
    return max(each.seconds for each in usage), sum(each.cpu_seconds for each in usage)


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the table."""
    for server in run_process.SERVERS:
        yield from _measure_with(server, *((4000, 1) if quick else (30_000, 5)))


def _measure_with(server: str, pairs: int, runs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name, run_process.start_server(run_process.SERVERS[server]) as running:
        folder = Path(name)
        list_file = run_process.write_pairs(folder / "pairs.csv", pairs)
        for _ in range(runs):
            for count, each in times.items():
                each.append(run_processes(running.url, list_file, folder, count))
    for count, each in times.items():
        ratios = [single[0] / several[0] for single, several in zip(times[1], each, strict=True)]
        yield (
            "two_processes",
            {
                "server": server,
                "processes": count,
                "pairs": pairs,
                "pairs per second": pairs / statistics.median(seconds for seconds, _ in each),
                "times one process": statistics.median(ratios),
                "lowest and highest": f"{min(ratios):.2f} to {max(ratios):.2f}",
                "CPU seconds per 1,000 pairs": statistics.median(cpu for _, cpu in each) / pairs * 1000,
            },
        )
