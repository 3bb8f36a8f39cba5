"""Whether two processes on one ledger are quicker than one: the same pairs, the same server, in turn.

The pairs are in the ledger before the clock starts. Server and harvesters share the machine: on two cores, two
harvesters can be no quicker than the cores that the server leaves them, so what one process takes of both cores, itself
and the server, bounds what two can gain.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes


def turn(url: str, pairs: Path, folder: Path, count: int) -> tuple[float, float]:
    """Let ``count`` processes harvest one ledger; gives seconds to the end of the last, and CPU seconds of all."""
    out = folder / "harvest"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "harvester"]
    subprocess.run([*command, "enqueue", str(pairs), "-o", str(out)], env=processes.ENVIRONMENT, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    run = [*command, "run", "-o", str(out), "--endpoint", url, "--log-level", "error", "--max-rate", "100000"]
    used = processes.run(*[run] * count)
    if any(each.status for each in used):
        raise SystemExit(f"harvesters ended with {[each.status for each in used]}")
    return max(each.seconds for each in used), sum(each.cpu_seconds for each in used)


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the rows of the table as they come."""
    pairs, runs = (4000, 1) if quick else (30_000, 5)
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name, processes.serving("server.py") as server:
        folder = Path(name)
        listed = processes.write_pairs(folder / "pairs.csv", pairs)
        for _ in range(runs):
            for count, each in found.items():
                each.append(turn(server.url, listed, folder, count))
    for count, each in found.items():
        gained = [one[0] / this[0] for one, this in zip(found[1], each, strict=True)]
        yield (
            "together",
            {
                "processes": count,
                "pairs": pairs,
                "pairs a second": pairs / statistics.median(seconds for seconds, _ in each),
                "times one process": statistics.median(gained),
                "lowest and highest": f"{min(gained):.2f} to {max(gained):.2f}",
                "CPU seconds per 1,000 pairs": statistics.median(cpu for _, cpu in each) / pairs * 1000,
            },
        )
