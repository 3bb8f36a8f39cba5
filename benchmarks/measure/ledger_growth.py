"""The speed of the ledger as it grows: the time of each operation with a thousand to ten million pairs.

In each ledger, half of the pairs are settled and half are waiting. ``claim``, ``seal`` and ``stored`` are measured with
the last batches of 250 readings. ``recover`` releases 250 readings of a dead owner. ``stored`` is the time per batch,
and ``open`` the time per start. When this was measured last, ``status`` counted all pairs; it reads counts now. ``first
request`` is the time from the start of ``harvester run`` to its first request: once with the waiting pairs in the
ledger, and once with a list of the same number of pairs that are not in the ledger, one row for each.
"""

import asyncio
import hashlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.runtime import run_process
from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.model import DATASET, Batch, Captured, Pair, Part, ReadingOutcome, SentPair, Verdict

T = TypeVar("T")

PAGE = 10_000
BATCH = 250
BYTES_PER_PAIR = 600


class LedgerTimer:
    """Measures the operations of a ledger with a number of pairs."""

    def __init__(self, path: Path, pairs: int) -> None:
        """Use a new ledger at ``path``, which must not exist yet."""
        self._path = path
        self._pairs = pairs
        self._seconds: dict[str, list[float]] = {}

    async def measure_row(self) -> dict[str, Any]:
        """Fill the ledger, settle half of its pairs, and measure each operation."""
        async with await self._open() as ledger:
            for first in range(0, self._pairs, PAGE):
                page = [create_sent_pair(at) for at in range(first, min(first + PAGE, self._pairs))]
                await self._measure("enqueue", ledger.intake.enqueue(page, once=True))
            for _ in range(self._pairs // 2 // BATCH):
                await self.settle_batch(ledger)
            await self._measure("status", ledger.reports.get_books())
        for _ in range(5):
            async with await self._measure("open", self._open()) as ledger:
                await self._measure("recover", ledger.batches.recover())
                await ledger.batches.claim({"default": BATCH})
        del self._seconds["recover"][0]  # the first one found no dead owner
        micro = {name: 1e6 * statistics.median(times[-9:]) for name, times in self._seconds.items()}
        return {
            "pairs": self._pairs,
            "enqueue, us per pair": 1e6 * sum(self._seconds["enqueue"]) / self._pairs,
            "claim, us per pair": micro["claim"] / BATCH,
            "seal, us per pair": micro["seal"] / BATCH,
            "stored, ms": micro["stored"] / 1000,
            "status, us per pair": micro["status"] / self._pairs,
            "open, ms": micro["open"] / 1000,
            "recover, us per pair": micro["recover"] / BATCH,
            "ledger MiB": self._path.stat().st_size / 2**20,
        }

    async def _open(self) -> Ledger:
        return await Ledger.open(self._path, clock=SystemClock())

    async def settle_batch(self, ledger: Ledger) -> None:
        """Claim a batch, seal it as captured with a part of typical size, and mark it as stored."""
        readings = await self._measure("claim", ledger.batches.claim({"default": BATCH}))
        batch = Batch.open(time.time())
        reading_outcomes = [ReadingOutcome(each, Captured(Verdict.ACTIVITY, time.time(), b"", 28)) for each in readings]
        await self._measure("seal", ledger.batches.seal([(batch, reading_outcomes, [_create_part(batch)])]))
        await self._measure("stored", ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="here"))

    async def _measure(self, name: str, operation: Awaitable[T]) -> T:
        started = time.perf_counter()
        result = await operation
        self._seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result


def create_sent_pair(at: int) -> SentPair:
    """Return one of many sends, twenty for each campaign."""
    return SentPair(Pair("default", f"campaign-{at // 20:08d}", f"send-{at:08d}"), time.time())


def _create_part(batch: Batch) -> Part:
    data = os.urandom(BYTES_PER_PAIR * BATCH)
    digest = hashlib.sha256(data).hexdigest()
    return Part(DATASET, f"{batch.id}.ndjson.zst", digest, len(data), 42 * BATCH, data, "here")


def measure_first_request(folder: Path, *pairs: str, version: Path | None = None) -> float:
    """Start ``harvester run`` on a folder, and return the seconds until its first request."""
    with run_process.start_server("fast_server.py") as server:
        options = ("--endpoint", server.url, "-o", str(folder))
        command = run_process.harvester("run", *pairs, *options, version=version)
        started = time.time()
        process = subprocess.Popen(
            command, env=run_process.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            return float(server.next_line()) - started
        finally:
            process.kill()
            process.wait()


def measure(*, quick: bool = False, huge: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each size; ``huge`` adds ten million pairs."""
    sizes = [10**3, 10**4, 10**5, *([] if quick else [10**6]), *([10**7] if huge else [])]
    for pairs in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ledger = folder / "known" / ".harvester" / "ledger.db"
            row = asyncio.run(LedgerTimer(ledger, pairs).measure_row())
            row["first request, s"] = measure_first_request(folder / "known")
            list_file = run_process.write_pairs(folder / "pairs.csv", pairs // 2)
            row["first request of a new list, s"] = measure_first_request(folder / "new", str(list_file))
        yield "ledger_growth", row
