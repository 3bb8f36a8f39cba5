"""The stand-in for the Braze API as a process. It serves until its standard input ends, then prints its counts.

``python stand_in_server.py '{"limit": 500, "pairs_csv": "pairs.csv", ...}'`` takes the settings of ``SimulatorConfig``,
``pairs_csv`` (a file to write with the sends that exist), and ``clock_ahead_seconds`` (the error of its clock).
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from harvester.cli.simulate import write_pairs
from harvester.clock import SystemClock
from harvester.simulator import Simulator, SimulatorConfig


class ClockAhead(SystemClock):
    """A clock with a constant error."""

    def __init__(self, seconds: float) -> None:
        """Set the error: ``seconds`` ahead of the right time, or behind if negative."""
        self._seconds = seconds

    def wall(self) -> float:
        """Return the time with the error."""
        return super().wall() + self._seconds


async def main(config_values: dict[str, Any]) -> None:
    """Serve; print the address at the start and the counts at the end."""
    pairs_csv, ahead = config_values.pop("pairs_csv"), config_values.pop("clock_ahead_seconds", 0.0)
    config_values["faults"] = tuple(config_values.get("faults", ())) or SimulatorConfig().faults
    config = SimulatorConfig(**config_values | {"log": Path(config_values["log"])})
    async with Simulator(config, ClockAhead(ahead)) as simulator:
        write_pairs(Path(pairs_csv), simulator)
        print(simulator.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    quota = simulator.quota
    counts = {"neighbour_requests": quota.neighbour_requests, "neighbour_refused": quota.neighbour_refused}
    print(json.dumps(counts | {"lowest_remaining": quota.lowest_remaining}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
