"""What the harvester costs while it waits for budget: its share of one core, and its peak memory, at 69 calls a second.

69 calls a second is Braze's default budget of 250,000 an hour, spent to the last call. Start and end are counted.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes

RATE = 69


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the one row of the table."""
    pairs = RATE * (30 if quick else 240)
    with tempfile.TemporaryDirectory() as name, processes.serving("server.py") as server:
        folder = Path(name)
        listed = processes.write_pairs(folder / "pairs.csv", pairs)
        used = processes.done(processes.harvester(server.url, listed, folder / "harvest", "--max-rate", str(RATE)))
    yield (
        "default_budget",
        {
            "seconds": used.seconds,
            "calls a second": pairs / used.seconds,
            "% of one core": 100 * used.cpu_seconds / used.seconds,
            "peak MiB": used.peak_mib,
        },
    )
