"""One owner of a ledger of commit 1268f99, which had other names: executes commands as ``ledger_owner.py`` does.

The arguments are the folder of that version, which must also be on ``PYTHONPATH``, and the ledger's path. A claim of
that version is a batch, so it claims as many readings at once as a batch has. It shares no code with
``ledger_owner.py``: in its process, ``harvester`` and ``benchmarks`` are the packages of that version.
"""

import asyncio
import hashlib
import json
import random
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import harvester
from harvester.clock import SystemClock
from harvester.ledger import Ledger, batches, intake
from harvester.model import DATASET, Batch, Captured, Enqueued, Pair, Part, Settlement, Verdict

PAGE, BATCH = 2000, 1000
"""The pairs of an enqueued page, and the readings of a batch, as in ``ledger_owner.py``."""

_BYTES_PER_READING = 600
_WORKSPACE = "default"


class Owner:
    """Executes commands on a ledger, and measures their calls."""

    def __init__(self, ledger: Ledger) -> None:
        """Use an open ledger."""
        self._ledger = ledger
        self._random = random.Random(0)
        self.seconds: dict[str, list[float]] = {}

    async def execute(self, command: str, *arguments: int) -> None:
        """Execute one command."""
        self.seconds = {}
        match command, arguments:
            case "enqueue", (first, count, hours):
                await self._enqueue(first, first + count, hours)
            case "capture", ():
                while batch := await self._measure("claim", self._ledger.claim(_WORKSPACE, limit=BATCH)):
                    await self._settle(batch)
            case _:
                raise SystemExit(f"unknown command {command}")

    async def _enqueue(self, first: int, end: int, hours: int) -> None:
        now, interval = time.time(), hours * 3600 / (end - first)
        for start in range(first, end, PAGE):
            numbers = range(start, min(start + PAGE, end))
            page = [_create_arrival(at, now - (end - at) * interval) for at in numbers]
            await self._measure("enqueue", self._ledger.do(intake.enqueue, page, now=time.time()))

    async def _settle(self, batch: Batch) -> None:
        now, data = time.time(), self._random.randbytes(_BYTES_PER_READING * len(batch.readings))
        digest = hashlib.sha256(data).hexdigest()
        part = Part(DATASET, f"{batch.id}.ndjson.zst", digest, len(data), 42 * len(batch.readings), data)
        outcomes = [Settlement(each, Captured(Verdict.ACTIVITY, now, b"", 28)) for each in batch.readings]
        if not await self._measure("seal", self._ledger.seal(batch, outcomes, [part], destination="here")):
            raise SystemExit("a lease ended")
        await self._measure("stored", self._ledger.do(batches.stored, batch.id, dataset=DATASET, now=time.time()))

    async def _measure(self, name: str, operation: Awaitable[Any]) -> Any:
        started = time.perf_counter()
        result = await operation
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result


def _create_arrival(at: int, sent_at: float) -> Enqueued:
    """Return the same sends as ``ledger_owner.py``."""
    campaign, send = (hashlib.md5(str(number).encode()).hexdigest() for number in (at // 20, at))
    return Enqueued(Pair(_WORKSPACE, campaign, f"{int(sent_at):08x}{send[:16]}"), sent_at)


async def main(version: Path, location: Path) -> None:
    """Execute commands until standard input ends."""
    if not Path(harvester.__file__).is_relative_to(version):
        raise SystemExit(f"this is not the version in {version}, but {harvester.__file__}")
    async with await Ledger.open(location, clock=SystemClock()) as ledger:
        owner = Owner(ledger)
        print("ready", flush=True)
        for line in sys.stdin:
            name, *arguments = line.split()
            began = time.perf_counter()
            await owner.execute(name, *map(int, arguments))
            print(json.dumps({"began": began, "ended": time.perf_counter(), "seconds": owner.seconds}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
