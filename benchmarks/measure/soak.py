"""A quarter of a year in minutes: the memory, files and tasks of the service do not grow.

``python -m benchmarks.measure.soak [--days 90] [--sends-per-day 24]`` runs the service as ``month.py`` does, with
outages. Once per simulated day, it counts memory blocks, open files and tasks. The blocks include the records of
``month.py`` itself, some hundred a day.
"""

import argparse
import asyncio
import gc
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.measure.month import PROCESS_DOWN, month
from harvester.observability.logs import set_up_logs


@dataclass(frozen=True, slots=True)
class Held:
    """What the process held on a day."""

    day: int
    blocks: int
    open_files: int
    tasks: int


@dataclass(slots=True)
class Soak:
    """Days of a service, and what it held on each."""

    days: list[Held] = field(default_factory=list)

    def sample(self, day: float) -> None:
        """Record what the process holds, once a day."""
        if self.days and self.days[-1].day == int(day):
            return
        gc.collect()
        held = (sys.getallocatedblocks(), len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()))
        self.days.append(Held(int(day), *held))

    def early_and_late(self) -> tuple[Held, Held]:
        """Give the medians of the first and the last third of the days since the process was last begun."""
        since = [each for each in self.days if each.day > PROCESS_DOWN[1] + 1]
        third = len(since) // 3
        return _median(since[:third]), _median(since[-third:])


def _median(days: list[Held]) -> Held:
    return Held(
        days[0].day,
        int(median(each.blocks for each in days)),
        int(median(each.open_files for each in days)),
        int(median(each.tasks for each in days)),
    )


def main() -> None:
    """Run it, and print what the process held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends-per-day", type=int, default=24)
    parser.add_argument("--days", type=int, default=90)
    args = parser.parse_args()
    set_up_logs(json=False, level="error")
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak()
        month(
            sends_per_day=args.sends_per_day, days=args.days, ledger=Path(folder) / "ledger.db", on_sample=soak.sample
        )
    for each in soak.days:
        print(f"day {each.day:4}  {each.blocks:8} blocks  {each.open_files:4} files  {each.tasks:4} tasks")


if __name__ == "__main__":
    main()
