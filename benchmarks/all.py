"""Runs the benchmarks and writes down what came of it: ``results.json``, ``README.md`` and the pictures.

``python benchmarks/all.py`` runs them all, about an hour; ``--quick`` runs small ones, some minutes. Names run only
those: ``python benchmarks/all.py polite speed``; what was found of the others before stays. ``--huge`` lets the ledger
grow to ten million pairs. Nothing else should run on the machine meanwhile.
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

import budget
import default_budget
import growth
import latest
import page
import polite
import processes
import speed
import together

MODULES = {module.__name__: module for module in (polite, budget, speed, together, default_budget, growth, latest)}
PACKAGES = ("harvester", "aiohttp", "aiolimiter", "tenacity", "orjson", "sqlalchemy", "uvloop", "zstandard", "duckdb")


def machine() -> str:
    """Describe the machine in a line."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.split(":")[1].strip() for line in told if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model[0] if model else platform.machine()}, {memory:.0f} GiB, {platform.platform()}"


def versions() -> str:
    """Name what was measured, with versions."""
    ours = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    peers = sorted(peer.stem for peer in processes.HERE.glob("peers/*.py"))
    theirs = [wanted.replace("==", " ") for peer in peers for wanted in processes.needs(peer)]
    return ", ".join([f"Python {platform.python_version()}", *ours, *(each for each in theirs if each not in ours)])


def rows_of(name: str, *, quick: bool, huge: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run one benchmark."""
    more = {"huge": huge} if name == "growth" else {}
    yield from MODULES[name].measure(quick=quick, **more)


def main() -> None:
    """Run what was asked for, and write after each benchmark, so that nothing is lost if a later one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *MODULES], metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--huge", action="store_true")
    given = parser.parse_args()
    results = json.loads(page.RESULTS.read_text()) if page.RESULTS.exists() else {}
    for name in given.names or MODULES:
        tables: dict[str, list[dict[str, Any]]] = {}
        for table, row in rows_of(name, quick=given.quick, huge=given.huge):
            print(table, row, file=sys.stderr, flush=True)
            tables.setdefault(table, []).append(row)
        results[name] = {
            "taken": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "quick": given.quick, "machine": machine(),
            "versions": versions(), "tables": tables,
        }  # fmt: skip
        page.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        page.write(results)


if __name__ == "__main__":
    main()
