"""The speed of the ledger as it grows: the time of each operation with a thousand to ten million pairs.

In each ledger, half of the pairs are settled and half are waiting. ``claim``, ``seal`` and ``stored`` are measured with
the last batches of 250 readings. ``recover`` releases 250 readings of a dead owner. ``stored`` and ``open`` are
milliseconds per batch and per start. ``status`` counts all pairs. ``first request`` is the time from the start of
``harvester run`` to its first request, with the waiting pairs in the ledger, and with a list of as many pairs that are
not in the ledger.
"""

import asyncio
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.runtime import run_process
from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.model import DATASET, Batch, Captured, Pair, Part, SentPair, Settlement, Verdict

T = TypeVar("T")

PAGE = 10_000
BATCH = 250
BYTES_A_PAIR = 600


class Growing:
    """One ledger of a size, and the seconds that its verbs took."""

    def __init__(self, path: Path, pairs: int) -> None:
        """Begin with no ledger at ``path``."""
        self._path = path
        self._pairs = pairs
        self._took: dict[str, list[float]] = {}

    async def row(self) -> dict[str, Any]:
        """Fill the ledger, settle half of it, and time each verb on the way."""
        async with await self._opened() as ledger:
            for first in range(0, self._pairs, PAGE):
                page = [_sent(at) for at in range(first, min(first + PAGE, self._pairs))]
                await self._timed("enqueue", ledger.intake.enqueue(page, once=True))
            for _ in range(self._pairs // 2 // BATCH):
                await self._harvest(ledger)
            await self._timed("status", ledger.reports.get_books())
        for _ in range(5):
            async with await self._timed("open", self._opened()) as ledger:
                await self._timed("recover", ledger.batches.recover())
                await ledger.batches.claim({"default": BATCH})
        del self._took["recover"][0]  # no owner had died yet
        micro = {name: 1e6 * statistics.median(took[-9:]) for name, took in self._took.items()}
        return {
            "pairs": self._pairs,
            "enqueue, us per pair": 1e6 * sum(self._took["enqueue"]) / self._pairs,
            "claim, us per pair": micro["claim"] / BATCH,
            "seal, us per pair": micro["seal"] / BATCH,
            "stored, ms": micro["stored"] / 1000,
            "status, us per pair": micro["status"] / self._pairs,
            "open, ms": micro["open"] / 1000,
            "recover, us per pair": micro["recover"] / BATCH,
            "ledger MiB": self._path.stat().st_size / 2**20,
        }

    async def _opened(self) -> Ledger:
        return await Ledger.open(self._path, clock=SystemClock())

    async def _harvest(self, ledger: Ledger) -> None:
        """Claim a batch, seal it as captured with a part of a usual size, and note it as stored."""
        readings = await self._timed("claim", ledger.batches.claim({"default": BATCH}))
        batch = Batch.open(time.time())
        ended = [Settlement(each, Captured(Verdict.ACTIVITY, time.time(), b"", 28)) for each in readings]
        await self._timed("seal", ledger.batches.seal(batch, ended, [_part(batch)]))
        await self._timed("stored", ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="here"))

    async def _timed(self, name: str, verb: Awaitable[T]) -> T:
        started = time.perf_counter()
        result = await verb
        self._took.setdefault(name, []).append(time.perf_counter() - started)
        return result


def _sent(at: int) -> SentPair:
    return SentPair(Pair("default", f"campaign-{at // 20:08d}", f"send-{at:08d}"), time.time())


def _part(batch: Batch) -> Part:
    data = os.urandom(BYTES_A_PAIR * BATCH)
    digest = hashlib.sha256(data).hexdigest()
    return Part(DATASET, f"{batch.id}.ndjson.zst", digest, len(data), 42 * BATCH, data, "here")


def first_call(folder: Path, *pairs: str) -> float:
    """Run the harvester on a folder that holds a ledger, and give the seconds from its start to its first call."""
    with run_process.serving("fast_server.py") as server:
        command = [sys.executable, "-m", "harvester", "run", *pairs, "--endpoint", server.url, "-o", str(folder)]
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
    """Give a row for each size; ``huge`` adds ten million pairs."""
    sizes = [10**3, 10**4, 10**5, *([] if quick else [10**6]), *([10**7] if huge else [])]
    for pairs in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ledger = folder / "known" / ".harvester" / "ledger.db"
            row = asyncio.run(Growing(ledger, pairs).row())
            row["first request, s"] = first_call(folder / "known")
            listed = run_process.write_pairs(folder / "pairs.csv", pairs // 2)
            row["first request of a new list, s"] = first_call(folder / "new", str(listed))
        yield "ledger_growth", row
