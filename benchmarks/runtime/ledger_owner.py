"""One owner of a ledger: executes the commands of its standard input, and prints the times of its calls.

The argument is the ledger's path or URL. ``plan READINGS`` plans a reading a day, ``enqueue FIRST COUNT HOURS``
adds pairs that were sent in the last hours, ``capture`` claims, seals and stores until nothing is due, and ``advance
HOURS`` moves the clock. After each command, it
prints a line of JSON: when the command began and ended, by a clock that all processes share, and the seconds of each
call.
"""

import asyncio
import hashlib
import json
import random
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.model import DATASET, Batch, Captured, Pair, Part, Reading, ReadingOutcome, SentPair, Verdict
from harvester.place import DatabaseUrl
from harvester.schedule import ReadingPlan

T = TypeVar("T")

PAGE, CLAIM, BATCH = 2000, 250, 1000
"""The pairs of an enqueued page, the readings of a claim, and those of a batch, as in a busy service."""

_BYTES_PER_READING = 600
_WORKSPACE = "default"


class OwnerClock(SystemClock):
    """The machine's clock, a number of hours ahead."""

    hours = 0

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return super().monotonic() + self.hours * 3600

    def wall(self) -> float:
        """Return UTC seconds since the epoch."""
        return super().wall() + self.hours * 3600


class Owner:
    """Executes commands on a ledger, and measures their calls."""

    def __init__(self, ledger: Ledger, clock: OwnerClock) -> None:
        """Use an open ledger."""
        self._ledger = ledger
        self._clock = clock
        self._random = random.Random(0)
        self.seconds: dict[str, list[float]] = {}

    async def execute(self, command: str, *arguments: int) -> None:
        """Execute one command."""
        self.seconds = {}
        match command, arguments:
            case "plan", (readings,):
                plan = ReadingPlan(tuple(float(day) for day in range(1, readings + 1)))
                await self._ledger.intake.set_plan(_WORKSPACE, plan)
            case "enqueue", (first, count, hours):
                await self._enqueue(first, first + count, hours)
            case "capture", ():
                while readings := await self._claim():
                    await self._settle(readings)
            case "advance", (hours,):
                self._clock.hours += hours
            case _:
                raise SystemExit(f"unknown command {command}")

    async def _enqueue(self, first: int, end: int, hours: int) -> None:
        now, interval = self._clock.wall(), hours * 3600 / (end - first)
        for start in range(first, end, PAGE):
            numbers = range(start, min(start + PAGE, end))
            page = [_create_sent_pair(at, now - (end - at) * interval) for at in numbers]
            await self._measure("enqueue", self._ledger.intake.enqueue(page))

    async def _claim(self) -> list[Reading]:
        """Claim the readings of a batch, with several claims."""
        readings: list[Reading] = []
        while len(readings) < BATCH:
            claimed = await self._measure("claim", self._ledger.batches.claim({_WORKSPACE: CLAIM}))
            readings += claimed
            if not claimed:
                break
        return readings

    async def _settle(self, readings: list[Reading]) -> None:
        now = self._clock.wall()
        batch, data = Batch.open(now), self._random.randbytes(_BYTES_PER_READING * len(readings))
        digest = hashlib.sha256(data).hexdigest()
        part = Part(DATASET, f"{batch.id}.ndjson.zst", digest, len(data), 42 * len(readings), data, "here")
        outcomes = [ReadingOutcome(each, Captured(Verdict.ACTIVITY, now, b"", 28)) for each in readings]
        if not await self._measure("seal", self._ledger.batches.seal([(batch, outcomes, [part])])):
            raise SystemExit("a lease ended")
        await self._measure("stored", self._ledger.batches.mark_stored(batch.id, dataset=DATASET, destination="here"))

    async def _measure(self, name: str, operation: Awaitable[T]) -> T:
        started = time.perf_counter()
        result = await operation
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result


def _create_sent_pair(at: int, sent_at: float) -> SentPair:
    """Return one of many sends, twenty for each campaign. The id of a send begins with its time, the rest is random."""
    campaign, send = (hashlib.md5(str(number).encode()).hexdigest() for number in (at // 20, at))
    return SentPair(Pair(_WORKSPACE, campaign, f"{int(sent_at):08x}{send[:16]}"), sent_at)


async def main() -> None:
    """Execute commands until standard input ends."""
    clock = OwnerClock()
    location = DatabaseUrl(sys.argv[1]) if sys.argv[1].startswith("postgresql:") else Path(sys.argv[1])
    async with await Ledger.open(location, clock=clock) as ledger:
        now = clock.monotonic()
        ledger.clock.observe(clock.wall(), sent=now, received=now)
        await ledger.batches.register()
        owner = Owner(ledger, clock)
        print("ready", flush=True)
        for line in sys.stdin:
            name, *arguments = line.split()
            began = time.perf_counter()
            await owner.execute(name, *map(int, arguments))
            print(json.dumps({"began": began, "ended": time.perf_counter(), "seconds": owner.seconds}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
