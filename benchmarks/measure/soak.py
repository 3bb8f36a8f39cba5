"""Months of service in minutes: memory, open files, tasks and the ledger do not grow.

The service runs in virtual time, with the outages of ``month.py``. The ledger keeps settled sends for 30 days after
their 15 days, so its tables have their final size after 45 days. ``python -m benchmarks.measure.soak [--days 90]
[--sends-per-day 24]`` also prints the memory blocks, open files and tasks of each day. The blocks include the records
of ``month.py``, a few hundred per day.
"""

import argparse
import asyncio
import gc
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure.month import PROCESS_DOWN, month
from harvester.observability.logs import set_up_logs

MONTH_DAYS = 30


@dataclass(frozen=True, slots=True)
class DayUsage:
    """The memory blocks, open files and tasks of the process on one day."""

    day: int
    blocks: int
    open_files: int
    tasks: int


@dataclass(slots=True)
class Soak:
    """The usage of a service on each day, and the rows and bytes of each table of its ledger every thirty days."""

    ledger: Path
    days: list[DayUsage] = field(default_factory=list)
    tables: dict[int, dict[str, tuple[int, int]]] = field(default_factory=dict)

    def sample(self, day: float) -> None:
        """Record the usage, once a day."""
        if self.days and self.days[-1].day == int(day):
            return
        gc.collect()
        usage = (sys.getallocatedblocks(), len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()))
        self.days.append(DayUsage(int(day), *usage))
        if int(day) and int(day) % MONTH_DAYS == 0:
            self.tables[int(day)] = measure_tables(self.ledger)

    def early_and_late(self) -> tuple[DayUsage, DayUsage]:
        """Return the medians of the first and the last third of the days since the last start of the process."""
        since = [each for each in self.days if each.day > PROCESS_DOWN[1] + 1]
        third = len(since) // 3
        return _median(since[:third]), _median(since[-third:])


def _median(days: list[DayUsage]) -> DayUsage:
    return DayUsage(
        days[0].day,
        int(median(each.blocks for each in days)),
        int(median(each.open_files for each in days)),
        int(median(each.tasks for each in days)),
    )


def measure_tables(ledger: Path) -> dict[str, tuple[int, int]]:
    """Return for each table how many rows it has, and the bytes of its pages and those of its indexes."""
    sizes = (
        "SELECT tbl_name, sum(pgsize) FROM sqlite_master JOIN dbstat ON dbstat.name = sqlite_master.name"
        " WHERE tbl_name NOT LIKE 'sqlite_%' GROUP BY 1 ORDER BY 1"
    )
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as connection:
        return {
            name: (connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0], size)
            for name, size in connection.execute(sizes).fetchall()
        }


def run_service(*, days: int, sends_per_day: int) -> Soak:
    """Run the service for some simulated days; returns its usage."""
    set_up_logs(json=False, level="error")
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder) / "ledger.db")
        month(sends_per_day=sends_per_day, days=days, ledger=soak.ledger, on_sample=soak.sample)
    return soak


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each table of the ledger: its rows every thirty days, and the KiB on the last of these days."""
    tables = run_service(days=91 if quick else 181, sends_per_day=6).tables
    for name in next(iter(tables.values())):
        rows = {f"rows on day {day}": each[name][0] for day, each in tables.items()}
        last = tables[max(tables)][name][1]
        yield "soak", {"table": name} | rows | {"KiB at the end": last / 1024}


def _print_tables(tables: dict[int, dict[str, tuple[int, int]]]) -> None:
    print("rows (KiB)       " + "".join(f"{f'day {day}':>16}" for day in tables))
    for name in next(iter(tables.values()), {}):
        cells = (tables[day][name] for day in tables)
        print(f"{name:17}" + "".join(f"{f'{rows} ({size // 1024})':>16}" for rows, size in cells))


def main() -> None:
    """Run the service, and print its usage on each day."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends-per-day", type=int, default=24)
    parser.add_argument("--days", type=int, default=90)
    args = parser.parse_args()
    soak = run_service(days=args.days, sends_per_day=args.sends_per_day)
    for each in soak.days:
        print(f"day {each.day:4}  {each.blocks:8} blocks  {each.open_files:4} files  {each.tasks:4} tasks")
    _print_tables(soak.tables)


if __name__ == "__main__":
    main()
