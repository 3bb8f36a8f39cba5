"""What many workspaces cost one service, compared with commit 1268f99, which had an engine for each workspace.

Both versions run in turn on this machine, with the same libraries and the same stand-in server. An idle service has
nothing to read. A busy service has ten due readings in each workspace; all of them are in the ledger before it starts.
"never" means not within a minute. The table of goals contains scenes in virtual time, in which each transaction of the
ledger takes 5 ms. Sick workspaces are slow, halted, late, dead or hang.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure.many_workspaces_scenes import (
    PAIRS,
    compare_sizes,
    measure_alone,
    measure_metrics,
    measure_scenes,
)
from benchmarks.runtime import run_process

BEFORE = "1268f99"
PATIENCE_SECONDS = 60.0
IDLE_SECONDS = 20.0
READINGS = 10
MOST_BEFORE, MOST_BUSY_BEFORE = 2000, 500
"""More workspaces, without and with work, are not tried with the earlier version, which is never ready with these."""

_TICKS = os.sysconf("SC_CLK_TCK")
_TOP = Path(__file__).parent.parent.parent


class Service:
    """A running service with many workspaces, in a folder of its own."""

    def __init__(self, version: Path, folder: Path, url: str, workspaces: int) -> None:
        """Write the configuration of ``workspaces`` workspaces."""
        self.folder = folder
        self.port = run_process.find_free_port()
        tables = [f'[workspaces.w{at}]\nendpoint = "{url}"\napi_key = "a-key-of-{at}"\n' for at in range(workspaces)]
        head = f'out = "{folder / "out"}"\nweb_port = {self.port}\n'
        (folder / "harvester.toml").write_text(head + "".join(tables))
        self._environment = run_process.ENVIRONMENT | {"PYTHONPATH": str(version)}
        self._process: subprocess.Popen[bytes] | None = None

    def enqueue(self, workspaces: int) -> int:
        """Enqueue readings that are due in each workspace; returns their number."""
        lines = [f"w{at},c,s{number}\n" for number in range(READINGS) for at in range(workspaces)]
        (self.folder / "pairs.csv").write_text("workspace,campaign_id,send_id\n" + "".join(lines))
        command = ["enqueue", str(self.folder / "pairs.csv"), "--config", str(self.folder / "harvester.toml")]
        subprocess.run(
            [sys.executable, "-m", "harvester", *command],
            env=self._environment, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return len(lines)

    def start(self) -> None:
        """Start the service."""
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harvester", "serve", "--config", str(self.folder / "harvester.toml")],
                env=self._environment, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process is not None
        return self._process.pid

    def is_ready(self) -> bool:
        """Return whether ``/readyz`` responds with 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mib(self, field: str) -> float:
        """Return the resident memory of the process: ``VmRSS``, the current value, or ``VmHWM``, its peak."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    def count_captures(self) -> int:
        """Return how many readings are captured and sealed."""
        (path,) = self.folder.rglob("ledger.db")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM outcome").fetchone()[0])

    def stop(self) -> float:
        """Send SIGTERM; returns the seconds until the end."""
        assert self._process is not None
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return time.perf_counter() - began


def wait_until(condition: Callable[[], bool]) -> float | None:
    """Return the seconds until a condition holds; None if it does not within ``PATIENCE_SECONDS``."""
    began = time.perf_counter()
    while time.perf_counter() - began < PATIENCE_SECONDS:
        if condition():
            return time.perf_counter() - began
        time.sleep(0.05)
    return None


def measure_idle(version: Path, folder: Path, workspaces: int) -> dict[str, Any]:
    """Return the figures of a service that has nothing to read."""
    folder.mkdir()
    service = Service(version, folder, "http://127.0.0.1:9", workspaces)
    service.start()
    ready = wait_until(service.is_ready)
    cpu, began = service.cpu_seconds(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    share = (service.cpu_seconds() - cpu) / (time.perf_counter() - began)
    memory = service.memory_mib("VmRSS")
    return {
        "ready, s": "never" if ready is None else round(ready, 1),
        "share of a core, %": 100 * share,
        "MiB": memory,
        "SIGTERM to end, s": service.stop(),
    }


def measure_work(version: Path, folder: Path, workspaces: int) -> dict[str, Any]:
    """Return the figures of a service that reads ten pairs of each workspace."""
    folder.mkdir()
    with run_process.start_server("workspaces_server.py") as server:
        service = Service(version, folder, server.url, workspaces)
        readings = service.enqueue(workspaces)
        began = time.time()
        service.start()
        done = wait_until(lambda: service.count_captures() == readings)
        peak, cpu = service.memory_mib("VmHWM"), service.cpu_seconds()
        scrape = None if done is None else measure_metrics(service.port)
        stopped = service.stop()
        parts = len(list((folder / "out" / "send_analytics").rglob("*.ndjson.zst")))
        first = json.loads(server.stop())["first"]
    reached = first[-1] - began if len(first) == workspaces else None
    return {
        "readings": readings,
        "all captured, s": "never" if done is None else round(done, 1),
        "first request in each, s": "never" if reached is None else round(reached, 1),
        "parts": parts,
        "peak MiB": peak,
        "CPU seconds": cpu,
        "/metrics, ms": "-" if scrape is None else scrape,
        "SIGTERM to end, s": stopped,
    }


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = {BEFORE: run_process.check_out(BEFORE, folder / "before"), "now": _TOP}
        idle: list[dict[str, Any]] = []
        for workspaces, label in _list_runs(versions, (50,) if quick else (500, 2000, 10_000), MOST_BEFORE):
            row = measure_idle(versions[label], folder / f"idle-{workspaces}-{label}", workspaces)
            idle.append({"workspaces": workspaces, "version": label} | row)
            yield "idle_workspaces", idle[-1]
        for row in compare_sizes(idle):
            yield "idle_workspace", row
        for workspaces, label in _list_runs(versions, (50,) if quick else (500, 2000), MOST_BUSY_BEFORE):
            row = measure_work(versions[label], folder / f"work-{workspaces}-{label}", workspaces)
            yield "busy_workspaces", {"workspaces": workspaces, "version": label} | row
        yield "workspaces_goals", measure_alone(versions, folder, PAIRS // 10 if quick else PAIRS)
        if not quick:
            for row in measure_scenes(versions):
                yield "workspaces_goals", row


def _list_runs(versions: Iterable[str], sizes: Iterable[int], most_before: int) -> Iterator[tuple[int, str]]:
    """Yield each number of workspaces with each version that is tried with it."""
    for workspaces in sizes:
        for label in versions:
            if label != BEFORE or workspaces <= most_before:
                yield workspaces, label
