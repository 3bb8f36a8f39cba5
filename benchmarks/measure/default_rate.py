"""CPU and memory at Braze's default quota: the share of one core and the peak memory at 69 requests per second.

69 requests per second use up the default quota of 250,000 per hour. The figures include the start and end of the
process.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.runtime import run_process

RATE = 69


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the one row of the table."""
    pairs = RATE * (30 if quick else 240)
    with tempfile.TemporaryDirectory() as name, run_process.serving("fast_server.py") as server:
        folder = Path(name)
        listed = run_process.write_pairs(folder / "pairs.csv", pairs)
        used = run_process.done(run_process.harvester(server.url, listed, folder / "harvest", "--max-rate", str(RATE)))
    yield (
        "default_rate",
        {
            "seconds": used.seconds,
            "requests per second": pairs / used.seconds,
            "% of one core": 100 * used.cpu_seconds / used.seconds,
            "peak MiB": used.peak_mib,
        },
    )
