"""What a reading costs, counted in steps that no other load on the machine changes: nothing here is timed."""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from harvester.braze.budget import BudgetReport
from harvester.braze.client import Client
from harvester.braze.pacer import Pacer
from harvester.braze.series import captured
from harvester.braze.transport import Answer
from harvester.clock import SystemClock
from harvester.ledger import Ledger
from harvester.model import Captured, Enqueued, Pair, Reading, Settlement, Verdict
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.ledger_file import engines, recorded_statements

HOUSE = str(Path(__file__).parent.parent.parent / "harvester")

NOW = 1_767_225_600.0
READING = Reading(1, Pair("eu", "c", "s"), "once", NOW, 1e12, NOW)
VARIATION = {"variation_name": "A", "sent": 10, "opens": 3, "revenue": 1.5}
BATCH = 250
CALLS_A_ROW, CALLS_A_READING, STATEMENTS_A_BATCH = 15, 120, 14
"""About a tenth above what was found when this was written: 13, 106 and 13."""


def answer(days: int) -> bytes:
    """An answer of so many days, three rows each."""
    return json.dumps({"message": "success", "data": [
        {"time": f"2026-11-{day:02d}", "messages": {"email": [VARIATION], "ios_push": [VARIATION]}, "conversions": 1}
        for day in range(1, days + 1)
    ]}).encode()  # fmt: skip


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the functions of the harvester that are called, and those of C that it calls."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, happened: str, _what: object) -> None:
        if happened in ("call", "c_call") and frame.f_code.co_filename.startswith(HOUSE):
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def test_a_row_costs_a_handful_of_calls():
    """Rows are the hot path: putting one together must not become a matter of many small steps."""
    calls = []
    for days in (1, 14):
        body = answer(days)
        with counting() as counted:
            captured(body, READING, batch_id="b", captured_at=NOW, new_counters=set())
        calls.append(counted.total())
    assert (calls[1] - calls[0]) / (13 * 3) <= CALLS_A_ROW


class Wire:
    """Answers from memory."""

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Answer:
        """Give an answer without a day."""
        await asyncio.sleep(0.05)
        report = BudgetReport(250_000, 249_000, NOW + 1800, NOW)
        return Answer(200, b'{"message":"success","data":[]}', report, 0.01)


def test_policy_and_pace_cost_few_calls_a_reading():
    """What stands around an exchange, permit, budget and verdict together, stays small beside it."""

    async def capture() -> float:
        clock = VirtualClock()
        pacer = Pacer(reserve=0.2, max_rate=1e9, clock=clock, jitter=random.Random(1))
        client = Client(transport=Wire(), pacer=pacer, clock=clock, endpoint="https://rest.fra-01.braze.eu")
        await client.capture(READING, batch_id="b")
        with counting() as calls:
            for _ in range(100):
                await client.capture(READING, batch_id="b")
        return calls.total() / 100

    assert run_virtual(capture()) <= CALLS_A_READING


async def steps_of(ledger: Ledger) -> tuple[int, int]:
    """How many statements a batch takes from claim to seal, and how many steps of SQLite's machine, in fifties."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    engines(ledger)[0].raw_connection().driver_connection.set_progress_handler(step, 50)
    with recorded_statements(ledger) as statements:
        batch = await ledger.batches.claim("eu", limit=BATCH)
        settlements = [Settlement(each, Captured(Verdict.ZERO, NOW, b"", 1)) for each in batch.readings]
        assert await ledger.batches.seal(batch, settlements, [], destination="d")
    return len(statements), steps


async def filled(path, pairs: int) -> Ledger:
    """A ledger with so many pairs that are due."""
    ledger = await Ledger.open(path, clock=SystemClock())
    arrivals = [Enqueued(Pair("eu", "c", f"s{number}"), NOW) for number in range(pairs)]
    await ledger.intake.enqueue(arrivals, forced=True, once=True)
    return ledger


async def test_a_batch_costs_the_same_in_a_ledger_that_is_forty_times_as_large(tmp_path):
    """Claim and seal look at the batch, not at everything that waits."""
    async with (
        await filled(tmp_path / "small.db", 2 * BATCH) as small,
        await filled(tmp_path / "large.db", 80 * BATCH) as large,
    ):
        (few, little), (many, much) = await steps_of(small), await steps_of(large)
    assert few == many <= STATEMENTS_A_BATCH
    assert much <= 1.1 * little
