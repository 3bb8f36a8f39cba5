"""The cost of a reading in function calls and database steps, which do not depend on the machine's load."""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from harvester.braze.client import Client
from harvester.braze.pacer import Pacer
from harvester.braze.quota import QuotaReport
from harvester.braze.series import build_capture
from harvester.braze.transport import Response
from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.model import Batch, Captured, Pair, Reading, ReadingOutcome, SentPair, Verdict
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.ledger_file import engines, recorded_statements

PACKAGE = str(Path(__file__).parent.parent.parent / "harvester")

NOW = 1_767_225_600.0
READING = Reading(1, Pair("eu", "c", "s"), "once", NOW, 1e12, NOW)
VARIATION = {"variation_name": "A", "sent": 10, "opens": 3, "revenue": 1.5}
BATCH = 250
CALLS_A_ROW, CALLS_A_READING, STATEMENTS_A_BATCH = 15, 120, 11
"""About a tenth above the counts when this was written: 13, 106 and 10."""


def response_body(days: int) -> bytes:
    """Return a response of ``days`` days with three rows each."""
    return json.dumps({"message": "success", "data": [
        {"time": f"2026-11-{day:02d}", "messages": {"email": [VARIATION], "ios_push": [VARIATION]}, "conversions": 1}
        for day in range(1, days + 1)
    ]}).encode()  # fmt: skip


@contextmanager
def count_calls() -> Iterator[Counter[str]]:
    """Count the calls of harvester's functions, and of C functions that it calls."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, happened: str, _what: object) -> None:
        if happened in ("call", "c_call") and frame.f_code.co_filename.startswith(PACKAGE):
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def test_a_row_needs_few_function_calls():
    """The difference between 1 and 14 days gives the cost of one row."""
    calls = []
    for days in (1, 14):
        body = response_body(days)
        with count_calls() as counted:
            build_capture(body, READING, batch_id="b", captured_at=NOW, new_counters=set())
        calls.append(counted.total())
    assert (calls[1] - calls[0]) / (13 * 3) <= CALLS_A_ROW


class InstantTransport:
    """A transport that answers from memory."""

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Return a response without days."""
        await asyncio.sleep(0.05)
        report = QuotaReport(250_000, 249_000, NOW + 1800, NOW)
        return Response(200, b'{"message":"success","data":[]}', report, 0.01)


def test_pacing_and_policy_need_few_calls_per_reading():
    """The permit, the quota and the verdict count; the HTTP exchange does not."""

    async def capture() -> float:
        clock = VirtualClock()
        pacer = Pacer(reserve=0.2, max_rate=1e9, clock=clock, jitter=random.Random(1))
        client = Client(transport=InstantTransport(), pacer=pacer, clock=clock, endpoint="https://rest.fra-01.braze.eu")
        await client.capture(READING, get_batch_id=lambda: "b")
        with count_calls() as calls:
            for _ in range(100):
                await client.capture(READING, get_batch_id=lambda: "b")
        return calls.total() / 100

    assert run_virtual(capture()) <= CALLS_A_READING


async def count_steps(ledger: Ledger) -> tuple[int, int]:
    """Count a batch's SQL statements from claim to seal, and SQLite's virtual machine steps in units of fifty."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    await ledger.batches.register()
    engines(ledger)[0].raw_connection().driver_connection.set_progress_handler(step, 50)
    with recorded_statements(ledger) as statements:
        readings = await ledger.batches.claim({"eu": BATCH})
        reading_outcomes = [ReadingOutcome(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in readings]
        assert await ledger.batches.seal([(Batch.open(NOW), reading_outcomes, [])])
    return len(statements), steps


async def open_filled_ledger(path, pairs: int) -> Ledger:
    """Open a ledger with this many due pairs."""
    ledger = await Ledger.open(path, clock=SystemClock())
    arrivals = [SentPair(Pair("eu", "c", f"s{number}"), NOW) for number in range(pairs)]
    await ledger.intake.enqueue(arrivals, forced=True, once=True)
    return ledger


async def test_a_batch_costs_the_same_in_a_larger_ledger(tmp_path):
    """Claim and seal read only the batch, although 40 times as many pairs wait."""
    async with (
        await open_filled_ledger(tmp_path / "small.db", 2 * BATCH) as small,
        await open_filled_ledger(tmp_path / "large.db", 80 * BATCH) as large,
    ):
        (few, little), (many, much) = await count_steps(small), await count_steps(large)
    assert few == many <= STATEMENTS_A_BATCH
    assert much <= 1.1 * little
