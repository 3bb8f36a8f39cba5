"""The speed of two processes on one ledger compared with one: the same pairs on the same server, in turn.

The pairs are in the ledger before the clock starts. The server runs on the same machine. On two cores, two
harvesters can use only what the server leaves. The gain is limited, because one process and the server already use most
of both cores.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.runtime import run_process


def turn(url: str, pairs: Path, folder: Path, count: int) -> tuple[float, float]:
    """Let ``count`` processes harvest one ledger; gives seconds to the end of the last, and CPU seconds of all."""
    out = folder / "harvest"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "harvester"]
    subprocess.run(
        [*command, "enqueue", str(pairs), "-o", str(out)],
        env=run_process.ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    run = [*command, "run", "-o", str(out), "--endpoint", url, "--log-level", "error", "--max-rate", "100000"]
    used = run_process.run(*[run] * count)
    if any(each.status for each in used):
        raise SystemExit(f"harvesters ended with {[each.status for each in used]}")
    return max(each.seconds for each in used), sum(each.cpu_seconds for each in used)


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the rows of the table as they come."""
    pairs, runs = (4000, 1) if quick else (30_000, 5)
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name, run_process.serving("fast_server.py") as server:
        folder = Path(name)
        listed = run_process.write_pairs(folder / "pairs.csv", pairs)
        for _ in range(runs):
            for count, each in found.items():
                each.append(turn(server.url, listed, folder, count))
    for count, each in found.items():
        gained = [one[0] / this[0] for one, this in zip(found[1], each, strict=True)]
        yield (
            "two_processes",
            {
                "processes": count,
                "pairs": pairs,
                "pairs per second": pairs / statistics.median(seconds for seconds, _ in each),
                "times one process": statistics.median(gained),
                "lowest and highest": f"{min(gained):.2f} to {max(gained):.2f}",
                "CPU seconds per 1,000 pairs": statistics.median(cpu for _, cpu in each) / pairs * 1000,
            },
        )
