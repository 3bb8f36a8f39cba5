"""CPU and memory at Braze's default quota: the share of one core and the peak memory at 69 requests per second.

69 requests per second use up the default quota of 250,000 per hour. The figures include the start and end of the
process. The bare loop of "Speed" sends its requests at the same rate.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure.speed import bare_loop_command
from benchmarks.runtime import run_process

RATE = 69


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each client."""
    pairs = RATE * (30 if quick else 240)
    with tempfile.TemporaryDirectory() as name, run_process.start_server(run_process.SERVERS["nginx"]) as server:
        folder = Path(name)
        list_file = run_process.write_pairs(folder / "pairs.csv", pairs)
        commands = {
            "bare aiohttp loop": [*bare_loop_command(server.url, list_file, folder), str(RATE)],
            "harvester": run_process.harvester_command(
                server.url, list_file, folder / "harvest", "--max-rate", str(RATE)
            ),
        }
        for client, command in commands.items():
            usage = run_process.run_checked(command)
            row = {
                "client": client,
                "seconds": usage.seconds,
                "requests per second": pairs / usage.seconds,
                "% of one core": 100 * usage.cpu_seconds / usage.seconds,
                "peak MiB": usage.peak_mib,
            }
            yield "default_rate", row
