"""The harvester against the simplest possible loop: the same job, the same server, side by side, in one run.

``python benchmarks/speed.py [--pairs 10000] [--runs 5]`` times whole processes, from start to exit, in turn, and
prints medians and their ratio. ``--memory`` compares the harvester's peak memory at 10,000 and 200,000 pairs
instead. ``--help-time`` compares ``harvester --help`` with ``python -c "import aiohttp"``.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).parent
KEY = "benchmark-key"


def write_pairs(path: Path, count: int) -> None:
    """Write a list of sends, twenty to a campaign."""
    with path.open("w") as file:
        file.write("campaign_id,send_id\n")
        file.writelines(f"{uuid.UUID(int=at // 20 * 7919)},send-{at:08d}\n" for at in range(count))


def measured(command: list[str]) -> tuple[float, float, float]:
    """Run a command to its end; gives wall seconds, CPU seconds and peak memory in MiB."""
    started = time.perf_counter()
    environment = os.environ | {"BRAZE_API_KEY": KEY}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its byte-code
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


class Jobs:
    """The two ways to do the same job against one server."""

    def __init__(self, folder: Path, port: int) -> None:
        """Work in ``folder``, against the server on ``port``."""
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"

    def bare(self, pairs: Path) -> tuple[float, float, float]:
        """Run the loop without any safety."""
        out = self.folder / "bare.ndjson"
        return measured(
            [sys.executable, str(HERE / "bare_loop.py"), self.url + "/sends/data_series", str(pairs), str(out)]
        )

    def harvester(self, pairs: Path) -> tuple[float, float, float]:
        """Run the harvester, everything on, into an empty folder."""
        out = self.folder / "harvest"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "harvester", "run", str(pairs), "--endpoint", self.url, "-o", str(out)]
        return measured([*command, "--max-rate", "100000", "--log-level", "error"])


def row(name: str, figures: list[tuple[float, float, float]], pairs: int) -> None:
    """Print medians."""
    wall, cpu, memory = (statistics.median(column) for column in zip(*figures, strict=True))
    print(f"{name:24} {wall:8.2f} s {pairs / wall:9.0f} pairs/s {cpu:8.2f} CPU s {memory:7.0f} MiB")


def speed(jobs: Jobs, pairs: Path, count: int, runs: int) -> None:
    """Compare both, in turn."""
    figures = [(jobs.bare(pairs), jobs.harvester(pairs)) for _ in range(runs + 1)][1:]
    row("bare aiohttp loop", [bare for bare, _ in figures], count)
    row("harvester", [ours for _, ours in figures], count)
    ratios = [bare[0] / ours[0] for bare, ours in figures]
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"harvester / bare loop    {statistics.median(ratios):.2f} in pairs per second {spread}")


def memory(jobs: Jobs, folder: Path, runs: int) -> None:
    """Compare the harvester with itself on twenty times the pairs."""
    peaks = []
    for count in (10_000, 200_000):
        write_pairs(folder / "pairs.csv", count)
        figures = [jobs.harvester(folder / "pairs.csv") for _ in range(runs)]
        row(f"harvester, {count} pairs", figures, count)
        peaks.append(statistics.median(each[2] for each in figures))
    print(f"peak memory              {peaks[1] / peaks[0]:.2f} times")


def help_time(runs: int) -> None:
    """Compare the start of the command with the import of its largest library."""
    ours, theirs = [sys.executable, "-m", "harvester", "--help"], [sys.executable, "-c", "import aiohttp"]
    ratios = [measured(ours)[0] / measured(theirs)[0] for _ in range(runs + 1)][1:]
    print(f"harvester --help         {statistics.median(ratios):.2f} times the import of aiohttp")


def main() -> None:
    """Start the server, run what was asked, stop the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--help-time", action="store_true")
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(HERE / "server.py"), str(port)])
    try:
        time.sleep(1)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            jobs = Jobs(folder, port)
            if given.help_time:
                help_time(given.runs)
            elif given.memory:
                memory(jobs, folder, given.runs)
            else:
                write_pairs(folder / "pairs.csv", given.pairs)
                speed(jobs, folder / "pairs.csv", given.pairs, given.runs)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
