"""Runs the benchmarks and writes ``report/results.json``, ``README.md`` and the pictures.

``python -m benchmarks`` runs all benchmarks, which takes about two hours. ``--quick`` runs smaller versions in a few
minutes. ``python -m benchmarks polite speed`` runs only these two, and keeps the results of the others. ``--huge`` also
measures a ledger of ten million pairs. Run nothing else on the machine meanwhile.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    costs,
    default_rate,
    instructions,
    latest_view,
    ledger_databases,
    ledger_growth,
    ledger_size,
    many_workspaces,
    polite,
    quota_simulation,
    replica_faults,
    replica_simulation,
    replicas,
    soak,
    speed,
    two_processes,
)
from benchmarks.report import report
from benchmarks.runtime import run_process

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        polite,
        quota_simulation,
        costs,
        instructions,
        speed,
        two_processes,
        many_workspaces,
        replica_simulation,
        replica_faults,
        replicas,
        default_rate,
        ledger_growth,
        ledger_databases,
        ledger_size,
        soak,
        latest_view,
    )
}
PACKAGES = (
    "braze-harvester",
    "aiohttp",
    "aiolimiter",
    "tenacity",
    "orjson",
    "sqlalchemy",
    "uvloop",
    "zstandard",
    "duckdb",
)


def describe_machine() -> str:
    """Describe the machine in one line."""
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.split(":")[1].strip() for line in cpu if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model[0] if model else platform.machine()}, {memory:.0f} GiB, {platform.platform()}"


def list_versions() -> str:
    """List the measured programs and libraries with their versions."""
    ours = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    peers = sorted(peer.stem for peer in run_process.PEERS.glob("*.py"))
    theirs = [each.replace("==", " ") for peer in peers for each in run_process.load_requirements(peer)]
    return ", ".join([f"Python {platform.python_version()}", *ours, *(each for each in theirs if each not in ours)])


def run_benchmark(name: str, *, quick: bool, huge: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run one benchmark; yields the name of a table and a row of it."""
    options = {"huge": huge} if name == "ledger_growth" else {}
    yield from MODULES[name].measure(quick=quick, **options)


def main() -> None:
    """Run the selected benchmarks, and write the results after each, so that a later failure loses none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *MODULES], metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--huge", action="store_true")
    args = parser.parse_args()
    results = json.loads(report.RESULTS.read_text()) if report.RESULTS.exists() else {}
    for name in args.names or MODULES:
        tables: dict[str, list[dict[str, Any]]] = {}
        for table, row in run_benchmark(name, quick=args.quick, huge=args.huge):
            print(table, row, file=sys.stderr, flush=True)
            tables.setdefault(table, []).append(row)
        results[name] = {
            "taken": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "quick": args.quick,
            "machine": describe_machine(),
            "versions": list_versions(),
            "tables": tables,
        }
        report.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        report.write(results)


if __name__ == "__main__":
    main()
