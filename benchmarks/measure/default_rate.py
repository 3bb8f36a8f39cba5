"""CPU and memory at Braze's default quota: the share of one core and the peak memory at 69 requests per second.

69 requests per second use up the default quota of 250,000 per hour. The figures include the start and end of the
process. The bare loop of "Speed" sends its requests at the same rate.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import speed
from benchmarks.runtime import run_process

RATE = 69


def bare_loop_command(url: str, pairs: Path, folder: Path) -> list[str]:
    """Return the command of the bare loop at this rate."""
    return [*speed.bare_loop_command(url, pairs, folder), str(RATE)]


def harvester_command(url: str, pairs: Path, folder: Path, *, version: Path | None = None) -> list[str]:
    """Return the command of harvester at this rate."""
    return run_process.harvester_command(url, pairs, folder / "harvest", "--max-rate", str(RATE), version=version)


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each client."""
    pairs = RATE * (30 if quick else 120)
    with tempfile.TemporaryDirectory() as name, run_process.start_server(run_process.SERVERS["nginx"]) as server:
        folder = Path(name)
        list_file = run_process.write_pairs(folder / "pairs.csv", pairs)
        for client, job in {"bare aiohttp loop": bare_loop_command, "harvester": harvester_command}.items():
            usage = run_process.run_checked(job(server.url, list_file, folder))
            row = {
                "client": client,
                "seconds": usage.seconds,
                "requests per second": pairs / usage.seconds,
                "% of one core": 100 * usage.cpu_seconds / usage.seconds,
                "peak MiB": usage.peak_mib,
            }
            yield "default_rate", row
