"""Refused pairs: wrong ids never keep real pairs from being captured, and a wrong endpoint costs few calls."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
import structlog

from harvester.braze.budget import BudgetReport
from harvester.braze.refusals import CAMPAIGNS_KEPT, PROBES_TO_HALT, REFUSALS_TO_DOUBT, Refusals, Trust
from harvester.braze.transport import Response
from harvester.engine.wiring import Harvesting
from harvester.ledger import Ledger
from harvester.model import RETENTION_SECONDS, Books, Enqueued, Pair
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import Compression, FolderSink

GOOD = orjson.dumps({"message": "success", "data": []})
HOUR = 3600.0
START = VirtualClock().starts_at
CONCURRENCY = 64
AT_ONCE = REFUSALS_TO_DOUBT + CONCURRENCY
"""So many calls at the most leave before the answer to the first twenty is understood."""


class Braze:
    """A wire that knows some campaigns and refuses all others; ``asked`` are their ids, with the time of each call."""

    def __init__(self, known: Iterable[str], *, status: int = 400, fails: Callable[[int], bool] | None = None) -> None:
        """Refuse with ``status``; a call whose number ``fails`` meets a 503."""
        self.known = set(known)
        self.asked: list[tuple[str, float]] = []
        self.most_in_flight = self._in_flight = 0
        self._status = status
        self._fails = fails or (lambda _: False)

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Answer, with a budget that is large."""
        self.asked.append((pair.campaign_id, asyncio.get_running_loop().time()))
        number = len(self.asked)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(0.05)
        self._in_flight -= 1
        status = 503 if self._fails(number) else 200 if pair.campaign_id in self.known else self._status
        body = GOOD if status == 200 else b'{"message":"Invalid Campaign ID"}'
        return Response(status=status, body=body, budget=BudgetReport(), latency_seconds=0.05)

    def scrub(self, text: str) -> str:
        """Nothing secret is in what it says."""
        return text

    async def close(self) -> None:
        """Nothing to close."""


class Harvested(NamedTuple):
    """What came of a harvest."""

    books: Books
    halted: str | None
    seconds: float

    @property
    def captured(self) -> int:
        """How many pairs were captured."""
        return sum(self.books.captured.values())

    @property
    def rejected(self) -> int:
        """How many pairs were rejected."""
        return sum(self.books.rejected.values())


def sends(campaign: str, count: int, *, hours_left: float) -> list[Enqueued]:
    """Sends of one campaign whose numbers are kept for so many hours more."""
    sent_at = START + hours_left * HOUR - RETENTION_SECONDS
    return [Enqueued(Pair("eu", campaign, f"s{number}"), sent_at) for number in range(count)]


def harvested(
    folder: Path, braze: Braze, *lists: list[Enqueued], lasting: bool = False, seconds: float = 12 * HOUR,
    late: tuple[float, list[Enqueued]] | None = None,
) -> Harvested:  # fmt: skip
    """Harvest lists as ``run`` does, or as ``serve`` for so long; ``late`` is a list that comes after some seconds."""

    async def story() -> Harvested:
        clock = VirtualClock()
        async with await Ledger.open(folder / "ledger.db", clock=clock, jitter=random.Random(1)) as ledger:
            pairs = [each for listed in lists for each in listed]
            await ledger.intake.enqueue(pairs, once=True)
            harvesting = Harvesting(
                Settings(workspaces={"eu": Workspace(endpoint="https://rest.fra-01.braze.eu", api_key="k" * 20)}),
                ledger=ledger, sink=FolderSink(folder / "out"), compression=Compression.NONE,
                lasting=lasting, connect=lambda *_: braze,
            )  # fmt: skip
            async with harvesting.opened():
                task = asyncio.create_task(harvesting.run())
                if late is not None:
                    await asyncio.sleep(late[0])
                    await ledger.intake.enqueue(late[1], once=True)
                    harvesting.look()
                await asyncio.wait([task], timeout=seconds)
                ended = clock.monotonic()
                harvesting.stop()
                await task
            because = (await ledger.reports.list_halted()).get("eu", (None, 0.0))[0]
            return Harvested(await ledger.reports.get_books(), because, ended)

    return run_virtual(story())


@pytest.mark.parametrize("lasting", [False, True], ids=["run", "serve"])
@pytest.mark.parametrize("wrong", [300, 2000])
def test_wrong_pairs_of_one_campaign_keep_no_real_pair_from_being_captured(tmp_path, wrong, lasting):
    """A mistyped campaign with the nearest deadlines is rejected pair by pair; what has an hour left is captured."""
    braze = Braze({"real"})
    lists = sends("typo", wrong, hours_left=0.5), sends("real", 100, hours_left=1)
    with structlog.testing.capture_logs() as logs:
        done = harvested(tmp_path, braze, *lists, lasting=lasting, seconds=0.9 * HOUR)
    assert (done.captured, done.rejected, done.books.pending, done.halted) == (100, wrong, 0, None)
    assert len(braze.asked) == wrong + 100
    told = [each for each in logs if each["event"] == "pairs_refused"]
    assert len(told) == 1  # once, not for each of the pairs
    assert "API identifiers" in told[0]["hint"]


@pytest.mark.parametrize("campaigns", [1, 2])
def test_a_list_of_wrong_pairs_of_a_campaign_or_two_is_rejected_and_halts_nothing(tmp_path, campaigns):
    """Nothing speaks for a wrong endpoint, and every pair has its honest outcome."""
    braze = Braze(())
    done = harvested(tmp_path, braze, *(sends(f"typo{each}", 150, hours_left=each + 1) for each in range(campaigns)))
    assert (done.rejected, done.books.pending, done.halted) == (150 * campaigns, 0, None)


@pytest.mark.parametrize(("status", "campaigns"), [(404, 3), (400, 12), (410, 200)])
def test_a_wrong_endpoint_halts_after_few_calls(tmp_path, status, campaigns):
    """Where every campaign is refused, a hundred calls find out; all other pairs stay in the plan."""
    braze = Braze((), status=status)
    each = 600 // campaigns
    done = harvested(tmp_path, braze, *(sends(f"c{number}", each, hours_left=9) for number in range(campaigns)))
    assert f"status {status}" in done.halted
    assert "in a row without one capture" in done.halted
    assert len(braze.asked) == done.rejected <= AT_ONCE + PROBES_TO_HALT
    assert done.books.pending == each * campaigns - done.rejected
    assert done.seconds < 60


def test_probes_leave_one_at_a_time(tmp_path):
    """While the endpoint is doubted nothing is in flight but one probe, each of another campaign."""
    braze = Braze(())
    harvested(tmp_path, braze, sends("typo", 500, hours_left=1), *(sends(f"c{n}", 9, hours_left=9) for n in range(20)))
    probes = [campaign for campaign, _ in braze.asked if campaign != "typo"]
    assert len(probes) == len(set(probes)) == PROBES_TO_HALT
    times = [at for campaign, at in braze.asked if campaign != "typo"]
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(times))


@pytest.mark.parametrize("each", [1, 10])
def test_many_wrong_campaigns_in_front_of_a_real_one_are_seen_through(tmp_path, each):
    """Three hundred wrong pairs of as many campaigns, or of thirty, with nearer deadlines: probes ask the other end."""
    wrong = [sends(f"typo{number}", each, hours_left=1 + number / 1000) for number in range(300 // each)]
    done = harvested(tmp_path, Braze({"real"}), *wrong, sends("real", 100, hours_left=48))
    assert (done.captured, done.rejected, done.halted) == (100, 300, None)


def test_a_campaign_that_was_captured_before_is_asked_first(tmp_path):
    """Wrong campaigns with the nearest and with the farthest deadlines: what was captured in an earlier run decides."""
    braze = Braze({"real"})
    assert harvested(tmp_path, braze, sends("real", 1, hours_left=24)).captured == 1
    near = [sends(f"near{number}", 30, hours_left=1) for number in range(20)]
    far = [sends(f"far{number}", 1, hours_left=240) for number in range(PROBES_TO_HALT + 10)]
    done = harvested(tmp_path, braze, *near, sends("real", 50, hours_left=24), *far)
    assert (done.captured, done.rejected, done.halted) == (50, 600 + PROBES_TO_HALT + 10, None)


def test_a_capture_among_refusals_and_failures_that_pass_are_no_reason_to_halt(tmp_path):
    """Every fourth call gets a 503, which neither counts as a refusal nor ends a series of refusals."""
    braze = Braze({"real"}, fails=lambda number: number % 4 == 0)
    done = harvested(tmp_path, braze, sends("typo", 300, hours_left=1), sends("real", 100, hours_left=24))
    assert (done.captured, done.rejected, done.halted) == (100, 300, None)

    braze = Braze((), fails=lambda number: number % 4 == 0)
    (tmp_path / "wrong").mkdir()
    lists = [sends(f"c{number}", 10, hours_left=1) for number in range(40)]
    done = harvested(tmp_path / "wrong", braze, *lists)
    assert done.halted is not None
    assert done.rejected <= AT_ONCE + PROBES_TO_HALT


def test_a_halt_by_refusals_is_probed_every_few_seconds_by_another_campaign_each(tmp_path):
    """A service behind a wrong endpoint asks one pair in six seconds; each probe settles one, of a campaign in turn."""
    braze = Braze(())
    lists = [sends(f"c{number}", 50, hours_left=24) for number in range(40)]
    harvested(tmp_path, braze, *lists, lasting=True, seconds=250)
    after = [each for each in braze.asked if each[1] > 100]
    assert 20 <= len(after) <= 30
    gaps = [later[1] - earlier[1] for earlier, later in pairwise(after)]
    assert 5 < min(gaps) <= max(gaps) < 8
    probed = Counter(campaign for campaign, _ in braze.asked[-20:])
    assert max(probed.values()) == 1


def test_a_halted_service_takes_up_a_real_pair_within_seconds(tmp_path):
    """A thousand wrong pairs wait; one that comes in is asked by the next probe or the one after it."""
    braze = Braze({"real"})
    wrong = [sends(f"typo{number}", 30, hours_left=300) for number in range(20)]
    late = sends("real", 100, hours_left=1)
    done = harvested(tmp_path, braze, *wrong, lasting=True, late=(60, late), seconds=60)
    first = next(at for campaign, at in braze.asked if campaign == "real")
    assert first < 60 + 15
    assert done.captured == 100


def test_a_restart_of_a_halted_workspace_begins_with_one_probe(tmp_path):
    """The ledger knows that it was halted: a mended endpoint is found out by one call, and so is one that is not."""
    lists = [sends(f"c{number}", 10, hours_left=24) for number in range(40)]
    wrong = Braze(())
    first = harvested(tmp_path, wrong, *lists)
    assert first.halted is not None
    still = Braze(())
    second = harvested(tmp_path, still)
    assert second.halted is not None
    assert (len(still.asked), still.most_in_flight) == (PROBES_TO_HALT, 1)
    mended = Braze({f"c{number}" for number in range(40)})
    third = harvested(tmp_path, mended)
    assert third.halted is None
    assert third.captured == 400 - first.rejected - PROBES_TO_HALT
    assert third.books.pending == 0


def test_a_restart_with_nothing_left_but_the_campaigns_that_were_refused_asks_them(tmp_path):
    """No exclusion outlives the process: a mended endpoint is never judged without a call."""
    lists = [sends(f"c{number}", 100, hours_left=24) for number in range(3)]
    first = harvested(tmp_path, Braze(()), *lists)
    assert first.halted is not None
    done = harvested(tmp_path, Braze({"c0", "c1", "c2"}))
    assert (done.captured, done.books.pending, done.halted) == (300 - first.rejected, 0, None)


def test_a_campaign_counts_once():
    """Three hundred refusals of it are one doubt; after a capture of another it raises no doubt at all."""
    refusals = Refusals()
    for _ in range(300):
        refusals.add_refusal("typo", "status 400")
    assert refusals.trust is Trust.DOUBTED
    assert refusals.begin_probe().refused == ("typo",)
    assert refusals.add_capture()
    for _ in range(300):
        refusals.add_refusal("typo", "status 400")
    assert refusals.trust is Trust.TRUSTED


def test_what_was_in_flight_when_the_doubt_arose_is_no_probe():
    """Sixty wrong pairs of as many campaigns that were asked together don't answer whether a later one is refused."""
    refusals = Refusals()
    for number in range(64):
        refusals.add_refusal(f"c{number}", "status 404")
    assert refusals.trust is Trust.DOUBTED
    refusals.begin_probe()
    for number in range(PROBES_TO_HALT):
        assert refusals.trust is Trust.DOUBTED
        refusals.add_refusal(f"probe{number}", "status 404")
    assert refusals.trust is Trust.HALTED
    assert not Refusals().add_capture()


def test_the_memory_of_refusals_is_bounded():
    """A service that is halted for weeks keeps the newest few hundred campaigns in mind."""
    refusals = Refusals()
    for number in range(10 * CAMPAIGNS_KEPT):
        refusals.add_refusal(f"c{number}", "status 404")
        refusals.begin_probe()
    assert len(refusals.begin_probe().refused) == CAMPAIGNS_KEPT
    assert refusals.begin_probe().refused[-1] == f"c{10 * CAMPAIGNS_KEPT - 1}"


@pytest.mark.parametrize("lasting", [False, True], ids=["run", "serve"])
def test_a_campaign_whose_calls_all_fail_keeps_no_other_from_being_captured(tmp_path, lasting):
    """Braze answers 500 for one campaign, which has the nearest deadlines: after each pause another one is asked."""
    braze = Braze({"real"}, status=500)
    lists = sends("broken", 60, hours_left=20), sends("real", 20, hours_left=40)
    done = harvested(tmp_path, braze, *lists, lasting=lasting, seconds=0.5 * HOUR)
    assert (done.captured, done.rejected, done.halted) == (20, 0, None)
