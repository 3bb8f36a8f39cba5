"""The goals for many workspaces that are measured inside a process: scenes of both versions, and one workspace alone.

``workspaces_scenes.py`` runs each scene in its own process. What runs in virtual time does not depend on the machine.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.runtime import run_process

PAIRS = 10_000
SCRAPES = 5

_SCENES = (
    ("sick", "delay of the healthy, p99, of 2,000 workspaces with 10 readings, 400 sick, virtual s", "at most 20"),
    ("kill", "requests repeated by a kill, at 69/s beside sick workspaces", "at most 340"),
    ("claim", "a claim while the event loop is busy, ms", "at most 15"),
    ("messages", "statements for three messages of a pair that is not due, 200 workspaces", "at most 30"),
)


def measure_scenes(versions: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Yield a row for each goal, with the figure of each version."""
    for scene, name, goal in _SCENES:
        yield {"figure": name, "goal": goal} | {
            label: _measure_scene(version, scene) for label, version in versions.items()
        }


def _measure_scene(version: Path, scene: str) -> float:
    command = [sys.executable, str(run_process.HERE / "workspaces_scenes.py"), scene]
    environment = run_process.ENVIRONMENT | {"PYTHONPATH": str(version)}
    return float(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))


def measure_alone(versions: Mapping[str, Path], folder: Path, pairs: int) -> dict[str, Any]:
    """Return the pairs per CPU second of ``harvester run`` with one workspace."""
    file = run_process.write_pairs(folder / "alone.csv", pairs)
    figures = {label: _run_alone(version, file, folder / f"alone-{label}") for label, version in versions.items()}
    return {"figure": f"one workspace, {pairs:,} pairs: pairs per CPU second", "goal": "not less than before"} | figures


def _run_alone(version: Path, file: Path, out: Path) -> float:
    """Return the pairs per second of the CPU: other work on the machine does not change it much."""
    with run_process.start_server("fast_server.py") as server:
        command = run_process.harvester_command(server.url, file, out)
        environment = run_process.ENVIRONMENT | {"PYTHONPATH": str(version)}
        process = subprocess.Popen(command, env=environment, cwd=file.parent, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return (len(file.read_text().splitlines()) - 1) / (usage.ru_utime + usage.ru_stime)


def measure_metrics(port: int) -> float | str:
    """Return the least milliseconds of a scrape of the metrics, or the status of a service that refuses it."""
    seconds = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
                response.read()
        except urllib.error.HTTPError as error:
            return f"status {error.code}"
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds)


def compare_sizes(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what an idle workspace costs each version: the difference of its smallest and its largest service."""
    for label in dict.fromkeys(each["version"] for each in rows):
        mine = [each for each in rows if each["version"] == label]
        first, last = mine[0], mine[-1]
        more = last["workspaces"] - first["workspaces"]
        if more:
            yield {
                "version": label,
                "from": first["workspaces"],
                "to": last["workspaces"],
                "KiB per idle workspace": 1024 * (last["MiB"] - first["MiB"]) / more,
                "CPU of an idle workspace, us per minute": (
                    60e4 * (last["share of a core, %"] - first["share of a core, %"]) / more
                ),
            }
