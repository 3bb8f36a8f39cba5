"""Refused pairs: wrong ids never keep real pairs from being captured, and a wrong endpoint costs few requests."""

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

from harvester.books import Books
from harvester.braze.quota import QuotaReport
from harvester.braze.refusals import CAMPAIGNS_KEPT, PROBES_TO_HALT, REFUSALS_TO_DOUBT, Refusals, Trust
from harvester.braze.transport import Response
from harvester.engine.engine import Engine
from harvester.ledger import Ledger
from harvester.model import RETENTION_SECONDS, Pair, SentPair
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import Compression, FolderSink

GOOD = orjson.dumps({"message": "success", "data": []})
HOUR = 3600.0
START = VirtualClock().starts_at
CONCURRENCY = 64
MOST_DOUBTED_REFUSALS = REFUSALS_TO_DOUBT + CONCURRENCY
"""The most requests that leave before the first twenty responses are processed."""


class Braze:
    """A transport that knows some campaigns and refuses all others. ``requests`` are their ids and times."""

    def __init__(self, known: Iterable[str], *, status: int = 400, fails: Callable[[int], bool] | None = None) -> None:
        """Refuse with ``status``; a request whose number is in ``fails`` gets a 503."""
        self.known = set(known)
        self.requests: list[tuple[str, float]] = []
        self.most_in_flight = self._in_flight = 0
        self._status = status
        self._fails = fails or (lambda _: False)

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Respond, with a large quota."""
        self.requests.append((pair.campaign_id, asyncio.get_running_loop().time()))
        number = len(self.requests)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(0.05)
        self._in_flight -= 1
        status = 503 if self._fails(number) else 200 if pair.campaign_id in self.known else self._status
        body = GOOD if status == 200 else b'{"message":"Invalid Campaign ID"}'
        return Response(status=status, body=body, quota=QuotaReport(), latency_seconds=0.05)

    def scrub(self, text: str) -> str:
        """Return the text: it contains no secret."""
        return text

    async def close(self) -> None:
        """Nothing to close."""


class Harvested(NamedTuple):
    """The result of a capture."""

    books: Books
    halted: str | None
    seconds: float

    @property
    def captured(self) -> int:
        """The number of captured pairs."""
        return sum(self.books.captured.values())

    @property
    def rejected(self) -> int:
        """The number of rejected pairs."""
        return sum(self.books.rejected.values())


def sends(campaign: str, count: int, *, hours_left: float) -> list[SentPair]:
    """Return sends of one campaign whose deadline is ``hours_left`` away."""
    sent_at = START + hours_left * HOUR - RETENTION_SECONDS
    return [SentPair(Pair("eu", campaign, f"s{number}"), sent_at) for number in range(count)]


def run_capture(
    folder: Path, braze: Braze, *lists: list[SentPair], until_stopped: bool = False, seconds: float = 12 * HOUR,
    late: tuple[float, list[SentPair]] | None = None,
) -> Harvested:  # fmt: skip
    """Capture lists as ``run`` does, or as ``serve`` for a time; ``late`` is a list that comes after some seconds."""

    async def story() -> Harvested:
        clock = VirtualClock()
        async with await Ledger.open(folder / "ledger.db", clock=clock, jitter=random.Random(1)) as ledger:
            pairs = [each for listed in lists for each in listed]
            await ledger.intake.enqueue(pairs, once=True)
            engine = Engine(
                Settings(workspaces={"eu": Workspace(endpoint="https://rest.fra-01.braze.eu", api_key="k" * 20)}),
                ledger=ledger, sink=FolderSink(folder / "out"), compression=Compression.NONE,
                until_stopped=until_stopped, connect=lambda *_: braze,
            )  # fmt: skip
            async with engine.opened():
                task = asyncio.create_task(engine.run())
                if late is not None:
                    await asyncio.sleep(late[0])
                    await ledger.intake.enqueue(late[1], once=True)
                    engine.wake()
                await asyncio.wait([task], timeout=seconds)
                ended = clock.monotonic()
                engine.stop()
                await task
            because = (await ledger.reports.list_halted()).get("eu", (None, 0.0))[0]
            return Harvested(await ledger.reports.get_books(), because, ended)

    return run_virtual(story())


@pytest.mark.parametrize("until_stopped", [False, True], ids=["run", "serve"])
def test_wrong_pairs_of_one_campaign_do_not_block_other_pairs(tmp_path, until_stopped):
    """A mistyped campaign with the nearest deadlines is rejected; pairs with an hour left are captured."""
    braze, wrong = Braze({"real"}), 300
    lists = sends("typo", wrong, hours_left=0.5), sends("real", 100, hours_left=1)
    with structlog.testing.capture_logs() as logs:
        done = run_capture(tmp_path, braze, *lists, until_stopped=until_stopped, seconds=0.9 * HOUR)
    assert (done.captured, done.rejected, done.books.pending, done.halted) == (100, wrong, 0, None)
    assert len(braze.requests) == wrong + 100
    logged = [each for each in logs if each["event"] == "pairs_refused"]
    assert len(logged) == 1  # once, not for each of the pairs
    assert "API identifiers" in logged[0]["hint"]


@pytest.mark.parametrize("campaigns", [1, 2])
def test_wrong_pairs_of_one_or_two_campaigns_do_not_halt(tmp_path, campaigns):
    """If only one or two campaigns are wrong, every pair of them is rejected and the workspace does not halt."""
    braze = Braze(())
    done = run_capture(tmp_path, braze, *(sends(f"typo{each}", 150, hours_left=each + 1) for each in range(campaigns)))
    assert (done.rejected, done.books.pending, done.halted) == (150 * campaigns, 0, None)


@pytest.mark.parametrize(("status", "campaigns"), [(404, 3), (400, 12), (410, 200)])
def test_a_wrong_endpoint_halts_after_few_requests(tmp_path, status, campaigns):
    """If every campaign is refused, a hundred requests are enough; all other pairs stay pending."""
    braze = Braze((), status=status)
    each = 600 // campaigns
    done = run_capture(tmp_path, braze, *(sends(f"c{number}", each, hours_left=9) for number in range(campaigns)))
    assert f"status {status}" in done.halted
    assert "in a row without one capture" in done.halted
    assert len(braze.requests) == done.rejected <= MOST_DOUBTED_REFUSALS + PROBES_TO_HALT
    assert done.books.pending == each * campaigns - done.rejected
    assert done.seconds < 60


def test_probes_leave_one_at_a_time(tmp_path):
    """While the endpoint is in doubt, one probe is in flight, each of another campaign."""
    braze = Braze(())
    run_capture(
        tmp_path, braze, sends("typo", 500, hours_left=1), *(sends(f"c{n}", 9, hours_left=9) for n in range(20))
    )
    probes = [campaign for campaign, _ in braze.requests if campaign != "typo"]
    assert len(probes) == len(set(probes)) == PROBES_TO_HALT
    times = [at for campaign, at in braze.requests if campaign != "typo"]
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(times))


@pytest.mark.parametrize("each", [1, 10])
def test_many_wrong_campaigns_before_a_right_one_do_not_halt(tmp_path, each):
    """A right campaign behind three hundred wrong pairs is found, because probes also start from the last deadline."""
    wrong = [sends(f"typo{number}", each, hours_left=1 + number / 1000) for number in range(300 // each)]
    done = run_capture(tmp_path, Braze({"real"}), *wrong, sends("real", 100, hours_left=48))
    assert (done.captured, done.rejected, done.halted) == (100, 300, None)


def test_a_campaign_that_was_captured_before_is_probed_first(tmp_path):
    """A campaign with captures of an earlier run is probed first, whatever the deadlines of wrong campaigns."""
    braze = Braze({"real"})
    assert run_capture(tmp_path, braze, sends("real", 1, hours_left=24)).captured == 1
    near = [sends(f"near{number}", 30, hours_left=1) for number in range(20)]
    far = [sends(f"far{number}", 1, hours_left=240) for number in range(PROBES_TO_HALT + 10)]
    done = run_capture(tmp_path, braze, *near, sends("real", 50, hours_left=24), *far)
    assert (done.captured, done.rejected, done.halted) == (50, 600 + PROBES_TO_HALT + 10, None)


def test_a_capture_among_refusals_and_transient_failures_prevents_a_halt(tmp_path):
    """A capture among refusals prevents a halt, and a 503 among them does not."""
    braze = Braze({"real"}, fails=lambda number: number % 4 == 0)
    done = run_capture(tmp_path, braze, sends("typo", 300, hours_left=1), sends("real", 100, hours_left=24))
    assert (done.captured, done.rejected, done.halted) == (100, 300, None)

    braze = Braze((), fails=lambda number: number % 4 == 0)
    (tmp_path / "wrong").mkdir()
    lists = [sends(f"c{number}", 10, hours_left=1) for number in range(40)]
    done = run_capture(tmp_path / "wrong", braze, *lists)
    assert done.halted is not None
    assert done.rejected <= MOST_DOUBTED_REFUSALS + PROBES_TO_HALT


def test_a_halt_by_refusals_is_probed_every_few_seconds(tmp_path):
    """A service with a wrong endpoint requests one pair in six seconds, each of another campaign."""
    braze = Braze(())
    lists = [sends(f"c{number}", 50, hours_left=24) for number in range(40)]
    run_capture(tmp_path, braze, *lists, until_stopped=True, seconds=250)
    after = [each for each in braze.requests if each[1] > 100]
    assert 20 <= len(after) <= 30
    gaps = [later[1] - earlier[1] for earlier, later in pairwise(after)]
    assert 5 < min(gaps) <= max(gaps) < 8
    probed = Counter(campaign for campaign, _ in braze.requests[-20:])
    assert max(probed.values()) == 1


def test_a_halted_service_captures_a_new_right_pair_within_seconds(tmp_path):
    """While a thousand wrong pairs wait, a new pair is requested by the next probe or the one after it."""
    braze = Braze({"real"})
    wrong = [sends(f"typo{number}", 30, hours_left=300) for number in range(20)]
    late = sends("real", 100, hours_left=1)
    done = run_capture(tmp_path, braze, *wrong, until_stopped=True, late=(60, late), seconds=60)
    first = next(at for campaign, at in braze.requests if campaign == "real")
    assert first < 60 + 15
    assert done.captured == 100


def test_a_restart_of_a_halted_workspace_begins_with_one_probe(tmp_path):
    """After a restart, a halted workspace sends one probe, because the ledger has the halt."""
    lists = [sends(f"c{number}", 10, hours_left=24) for number in range(40)]
    wrong = Braze(())
    first = run_capture(tmp_path, wrong, *lists)
    assert first.halted is not None
    still = Braze(())
    second = run_capture(tmp_path, still)
    assert second.halted is not None
    assert (len(still.requests), still.most_in_flight) == (PROBES_TO_HALT, 1)
    corrected = Braze({f"c{number}" for number in range(40)})
    third = run_capture(tmp_path, corrected)
    assert third.halted is None
    assert third.captured == 400 - first.rejected - PROBES_TO_HALT
    assert third.books.pending == 0


def test_a_restart_requests_refused_campaigns_if_no_others_are_left(tmp_path):
    """After a restart, refused campaigns are requested again, so that a corrected endpoint is noticed."""
    lists = [sends(f"c{number}", 100, hours_left=24) for number in range(3)]
    first = run_capture(tmp_path, Braze(()), *lists)
    assert first.halted is not None
    done = run_capture(tmp_path, Braze({"c0", "c1", "c2"}))
    assert (done.captured, done.books.pending, done.halted) == (300 - first.rejected, 0, None)


def test_a_campaign_counts_once():
    """Three hundred refusals of one campaign cause one doubt, and none after a capture of another campaign."""
    refusals = Refusals()
    for _ in range(300):
        refusals.add_refusal("typo", "status 400")
    assert refusals.trust is Trust.DOUBTED
    assert refusals.begin_probe().refused == ("typo",)
    assert refusals.add_capture()
    for _ in range(300):
        refusals.add_refusal("typo", "status 400")
    assert refusals.trust is Trust.TRUSTED


def test_a_request_in_flight_when_doubt_begins_is_no_probe():
    """Refusals of sixty requests that were sent together do not halt the workspace before a probe was sent."""
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
    """A service that is halted for weeks remembers the newest few hundred campaigns."""
    refusals = Refusals()
    for number in range(10 * CAMPAIGNS_KEPT):
        refusals.add_refusal(f"c{number}", "status 404")
        refusals.begin_probe()
    assert len(refusals.begin_probe().refused) == CAMPAIGNS_KEPT
    assert refusals.begin_probe().refused[-1] == f"c{10 * CAMPAIGNS_KEPT - 1}"


@pytest.mark.parametrize("until_stopped", [False, True], ids=["run", "serve"])
def test_a_campaign_whose_requests_all_fail_does_not_block_others(tmp_path, until_stopped):
    """If every request for one campaign gets a 500, each probe requests another campaign, which is captured."""
    braze = Braze({"real"}, status=500)
    lists = sends("broken", 60, hours_left=20), sends("real", 20, hours_left=40)
    done = run_capture(tmp_path, braze, *lists, until_stopped=until_stopped, seconds=0.5 * HOUR)
    assert (done.captured, done.rejected, done.halted) == (20, 0, None)
