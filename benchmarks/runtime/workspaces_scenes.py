"""Measures one scene of an engine with many workspaces: ``workspaces_scenes.py SCENE`` prints one number.

It measures the version that is on ``PYTHONPATH``. Scenes run in virtual time, except ``claim``.
"""

import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy
import structlog
import uvloop
from workspaces_engine import (
    BEFORE,
    DAY_SECONDS,
    SICK,
    SWITCH_INTERVAL_SECONDS,
    SentPair,
    SlowLedgerLoop,
    create_sends,
    enqueue_all,
    serve,
)

from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.model import Pair

STEP_SECONDS = 0.001


async def measure_sick() -> float:
    """Return the seconds until healthy workspaces are answered, p99: 10 readings in each of 2,000, 400 of them sick."""
    sick = [f"{SICK[at % len(SICK)]}-{at}" for at in range(400)]
    names = [name for at in range(400) for name in (sick[at], *(f"well-{at}-{number}" for number in range(4)))]
    async with serve(names, *(each for name in names for each in create_sends(name, 10))) as scene:
        healthy = 0
        while healthy < 16_000 and asyncio.get_running_loop().time() < 240:
            await asyncio.sleep(1)
            healthy = sum(name.startswith("well") for name, _ in scene.braze.answered)
        delays = [at for (name, _), at in scene.braze.first_at.items() if name.startswith("well")]
        delays += [240.0] * (16_000 - len(delays))
        return statistics.quantiles(delays, n=100)[98]


async def measure_kill() -> float:
    """Return the requests that a kill repeats, on average: in flight, or answered and not sealed.

    One workspace reads a backfill at 69 requests a second. Of 49 others, each with a reading every 20 seconds, 14 are
    sick.
    """
    others = [f"{SICK[at % len(SICK)]}-{at}" for at in range(14)] + [f"well-{at}" for at in range(35)]
    async with serve(["backfill-0", *others], *create_sends("backfill-0", 25_000)) as scene:
        repeated = []
        for turn in range(18):
            await scene.enqueue([each for name in others for each in create_sends(name, 1, prefix=f"{turn}-")])
            for _ in range(9):  # at nine phases of the ten seconds of a batch
                await asyncio.sleep(20 / 9)
                if turn > 5:
                    repeated.append(len(scene.braze.answered - scene.list_sealed()) + scene.braze.in_flight)
        return statistics.mean(repeated)


async def measure_messages() -> float:
    """Return the statements in nine seconds in which three messages of a pair arrive that is not due."""
    async with serve([f"well-{at}" for at in range(200)]) as scene:
        await asyncio.sleep(11)
        statements = 0

        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
        for _ in range(3):
            await scene.enqueue(create_sends("well-3", 1, age_days=0.0), once=False)
            await asyncio.sleep(3)
        return statements


async def measure_claim() -> float:
    """Return the milliseconds of a claim of 20 readings, median, while the event loop makes steps of a millisecond."""
    with tempfile.TemporaryDirectory() as folder:
        async with await Ledger.open(Path(folder) / "ledger.db", clock=SystemClock()) as ledger:
            sends = [SentPair(Pair("w", "c", f"s{at}"), time.time() - 2 * DAY_SECONDS) for at in range(2020)]
            await enqueue_all(ledger, sends, now=time.time())
            busy = asyncio.create_task(_keep_busy())
            seconds = []
            for _ in range(101):
                began = time.perf_counter()
                await (ledger.claim("w", limit=20) if BEFORE else ledger.batches.claim({"w": 20}))
                seconds.append(time.perf_counter() - began)
                await asyncio.sleep(0.02)
            busy.cancel()
        return 1000 * statistics.median(seconds[1:])


async def _keep_busy() -> None:
    while True:
        until = time.perf_counter() + STEP_SECONDS
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)


def main() -> None:
    """Measure the scene that the command line names."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    scene = {"sick": measure_sick, "kill": measure_kill, "messages": measure_messages, "claim": measure_claim}
    loop_factory: Any = SlowLedgerLoop
    if sys.argv[1] == "claim":
        loop_factory = uvloop.new_event_loop
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        print(json.dumps(runner.run(scene[sys.argv[1]]())))


if __name__ == "__main__":
    main()
