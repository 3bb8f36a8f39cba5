"""Four replicas on one PostgreSQL ledger, while everything that they need is killed, suspended or fails at random.

Pairs of twenty workspaces arrive through RabbitMQ while replicas are killed. Database, broker, API and store fail
independently of each other: they are killed, stopped, suspended, or disconnected around a COMMIT, and keys are revoked.
At the end, the log of the stand-in API, the parts in the bucket and the ledger are compared: each pair has its final
capture, and no reading was captured twice. ``above the reserve`` is the lowest number of requests that any workspace
had left above its reserve. ``before the deadline`` is the shortest time between a request and the end of retention.

``python -m benchmarks.torture --replicas 4 --serve rabbitmq --workspaces 20 --store moto --kills 1000`` runs the same
test, with any seed, and keeps the files of a run that fails.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.torture.__main__ import run_torture

SEED = 20


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the test once; yields its only row. Raises ``CheckFailed``."""
    kills, pairs = (20, 2000) if quick else (1000, 20_000)
    options = {"serve": "rabbitmq", "store": "moto", "replicas": 4, "workspaces": 20, "minutes": float("inf")}
    args, began = argparse.Namespace(seed=SEED, kills=kills, pairs=pairs, **options), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = asyncio.run(run_torture(args, Path(folder)))
    faults = {
        kind: sum(count for name, count in done.counts.items() if name.startswith(f"{kind}: "))
        for kind in ("database", "broker", "api", "store")
    }
    row = {"seed": SEED, "pairs": len(done.enqueued_pairs), "replicas killed": done.counts["kills"]}
    row |= {"suspended": done.counts["suspended"]} | {f"faults of the {kind}": count for kind, count in faults.items()}
    row |= {"requests": done.checker.responses, "captures": done.checker.captures.total(), "missing": 0, "twice": 0}
    yield "replica_faults", row | done.figures | {"minutes": (time.monotonic() - began) / 60}
