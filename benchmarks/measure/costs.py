"""What a start, a pair, a long list and the latest view cost, compared with commit eb7d6a4.

Both versions run in turn on this machine, with the same libraries and with nginx as the server. "Speed" describes the
bare loop. The speeds are medians of several runs; the cost at the default rate, the latest view and the long list are
measured once.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import default_rate, latest_view, ledger_growth, speed, two_processes
from benchmarks.runtime import run_process
from benchmarks.runtime.run_process import Usage

BEFORE = "eb7d6a4"
BARE = "bare"

Versions = Mapping[str, Path]
Figures = dict[str, float]
"""A figure of each version."""


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        top = run_process.HERE.parent.parent
        versions = {BEFORE: run_process.check_out(BEFORE, folder / "before"), "now": top}
        for figure, goal, figures in measure_figures(versions, folder, quick=quick):
            yield "costs", {"figure": figure, "goal": goal} | figures


def measure_figures(versions: Versions, folder: Path, *, quick: bool) -> Iterator[tuple[str, str, Figures]]:
    """Yield each figure with its goal."""
    one = compare_speed(versions, 1, 3 if quick else 9)
    yield "one pair: time of a run, times the bare loop", "at most 1.3", {name: 1 / each for name, each in one.items()}
    yield "1,000 pairs: speed, of the bare loop", "at least 0.8", compare_speed(versions, 1000, 1 if quick else 5)
    if not quick:
        yield "10,000 pairs: speed, of the bare loop", "at least 1", compare_speed(versions, 10_000, 3)
    cost = measure_default_rate(versions, folder, default_rate.RATE * (20 if quick else 60))
    yield "at 69 requests per second: peak MiB", "at most 70", {name: each.peak_mib for name, each in cost.items()}
    shares = {name: 100 * each.cpu_seconds / each.seconds for name, each in cost.items()}
    yield "at 69 requests per second: share of a core, %", "at most 3", shares
    ratios = compare_processes(versions, folder, *((4000, 1) if quick else (20_000, 3)))
    yield "two processes: speed, times one process", "at least 1.6", ratios
    rows = latest_view.QUICK_ROWS if quick else latest_view.ROWS
    views = measure_latest(versions, folder, rows, 1)
    alone = statistics.median(each.seconds for each in views.pop(BARE))
    seconds = {name: statistics.median(each.seconds for each in usage) / alone for name, usage in views.items()}
    yield f"latest of {rows:,} rows: time, times DuckDB alone", "at most 1.3", seconds
    peaks = {name: max(each.peak_mib for each in usage) for name, usage in views.items()}
    yield "the same: peak MiB", "at most 700", peaks
    sends = 50_000 if quick else 5_000_000
    yield f"first request of a new list of {sends:,} sends, s", "at most 5", measure_list(versions, folder, sends)


def compare_speed(versions: Versions, pairs: int, runs: int) -> Figures:
    """Return the speed of each version relative to the bare loop: the median of the turns."""
    jobs: dict[str, speed.Job] = {BARE: speed.bare_loop_command}
    jobs |= {name: partial(speed.harvester_command, version=version) for name, version in versions.items()}
    usage = speed.run_in_turn(jobs, pairs, runs)
    bare = usage.pop(BARE)
    return {name: _find_ratio(bare, each) for name, each in usage.items()}


def _find_ratio(bare: list[Usage], ours: list[Usage]) -> float:
    return statistics.median(one.seconds / other.seconds for one, other in zip(bare, ours, strict=True))


def measure_default_rate(versions: Versions, folder: Path, pairs: int) -> dict[str, Usage]:
    """Return what each version uses at the default rate."""
    list_file = run_process.write_pairs(folder / "pairs.csv", pairs)
    command = partial(default_rate.harvester_command, pairs=list_file, folder=folder)
    with run_process.start_server(run_process.SERVERS["nginx"]) as server:
        return {
            name: run_process.run_checked(command(server.url, version=version)) for name, version in versions.items()
        }


def compare_processes(versions: Versions, folder: Path, pairs: int, runs: int) -> Figures:
    """Return the speed of two processes on one ledger relative to that of one."""
    list_file = run_process.write_pairs(folder / "pairs.csv", pairs)
    ratios: dict[str, list[float]] = {name: [] for name in versions}
    with run_process.start_server(run_process.SERVERS["nginx"]) as server:
        for _ in range(runs):
            for name, version in versions.items():
                one, two = (
                    two_processes.run_processes(server.url, list_file, folder, count, version=version)[0]
                    for count in (1, 2)
                )
                ratios[name].append(one / two)
    return {name: statistics.median(each) for name, each in ratios.items()}


def measure_latest(versions: Versions, folder: Path, rows: int, runs: int) -> dict[str, list[Usage]]:
    """Return what the latest view costs each version, and DuckDB alone with its default memory limit."""
    latest_view.write_harvest(folder / "rows", rows)
    harvest, out = str(folder / "rows"), str(folder / "view.parquet")
    arguments = ("latest", harvest, "--format", "parquet", "-o", out)
    commands = {BARE: [sys.executable, latest_view.__file__, harvest, out]}
    commands |= {name: run_process.harvester(*arguments, version=version) for name, version in versions.items()}
    usage: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            usage[name].append(run_process.run_checked(command))
    return usage


def measure_list(versions: Versions, folder: Path, sends: int) -> Figures:
    """Return the seconds until the first request of a list with one row for each send."""
    list_file = run_process.write_pairs(folder / "sends.csv", sends)
    return {
        name: ledger_growth.measure_first_request(folder / f"new-{name}", str(list_file), version=version)
        for name, version in versions.items()
    }
