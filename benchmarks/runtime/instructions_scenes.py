"""The steps of a capture, one per process, so that ``instructions.py`` can count the instructions of each.

``python instructions_scenes.py SCENE COUNT [URL]`` does the work of one step for ``COUNT`` pairs.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import uvloop

from benchmarks.measure.ledger_growth import BATCH, LedgerTimer, create_sent_pair
from benchmarks.runtime.bare_loop import encode_rows
from benchmarks.runtime.fast_server import BODY
from harvester.braze.series import build_capture
from harvester.braze.transport import BrazeTransport
from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.model import DATASET, Batch, Pair, Reading
from harvester.storage import Compression, PartWriter

CONNECTIONS = 64


async def build_rows(count: int) -> None:
    """Turn responses into rows."""
    for _ in range(count):
        build_capture(BODY, _create_reading(0), batch_id="b" * 20, captured_at=time.time(), new_counters=set())


async def build_bare_rows(count: int) -> None:
    """Turn responses into rows as the bare loop does."""
    for at in range(count):
        encode_rows("campaign", f"send-{at:08d}", "2026-11-28T12:00:00", orjson.loads(BODY))


async def compress(count: int) -> None:
    """Compress the rows of captures."""
    capture = build_capture(BODY, _create_reading(0), batch_id="b" * 20, captured_at=time.time(), new_counters=set())
    writer = PartWriter(Batch.open(time.time()), DATASET, Compression.ZSTD, "here")
    for _ in range(count):
        writer.append(capture.rows, capture.row_count)
        await writer.compress_if_full()
    await writer.finish()


async def request(count: int) -> None:
    """Make requests, without pacing or a ledger."""
    transport = BrazeTransport(sys.argv[3], "key", connections=CONNECTIONS, clock=SystemClock())
    sends = iter(range(count))

    async def work() -> None:
        for at in sends:
            pair = Pair("default", f"campaign-{at // 20}", f"send-{at:08d}")
            await transport.send_series(pair, length_days=15, ending_at=1_800_000_000.0)

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    await transport.close()


async def settle(count: int) -> None:
    """Claim readings from a ledger, and seal them in batches."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            await ledger.intake.enqueue([create_sent_pair(at) for at in range(4000)], once=True)
            timer = LedgerTimer(path, 4000)
            for _ in range(count // BATCH):
                await timer.settle_batch(ledger)


def _create_reading(at: int) -> Reading:
    return Reading(at, Pair("default", "c" * 36, f"send-{at:08d}"), "once", 1.8e9, 1e12, 1.8e9)


SCENES: dict[str, Callable[[int], Awaitable[None]]] = {
    each.__name__: each for each in (build_rows, build_bare_rows, compress, request, settle)
}


def main() -> None:
    """Run one scene."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(SCENES[sys.argv[1]](int(sys.argv[2])))  # type: ignore[arg-type] # all scenes are coroutines


if __name__ == "__main__":
    main()
