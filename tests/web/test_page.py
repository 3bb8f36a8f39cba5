"""The text of the status page."""

import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.books import Books
from harvester.braze.pace_state import PaceState
from harvester.condition import Component, Condition
from harvester.formatting import compact
from harvester.ledger import Rejection
from harvester.model import Pair, Verdict
from harvester.monitor.health import Health
from harvester.monitor.history import QuotaHistory
from harvester.monitor.snapshot import ReplicasState, Snapshot, TriggerState
from harvester.web.metrics import encode_metrics
from harvester.web.page import render_page
from tests.support import snapshots


class Elements(HTMLParser):
    """The elements and the text of a document."""

    def __init__(self, document: str) -> None:
        """Read it all."""
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        self.tags.append(tag)
        self.text += " "

    def handle_data(self, data):
        """Note text."""
        self.text += data


def text(snapshot: Snapshot | None, problem: str | None = None) -> str:
    """The visible text of the page."""
    main = render_page(Health(snapshot, problem), now=snapshots.NOW).partition("<main>")[2].partition("</main>")[0]
    return " ".join(Elements(main).text.split())


def test_a_healthy_page_begins_with_healthy_and_the_nearest_deadline():
    """A healthy page says Healthy, then what is pending, and the nearest deadline."""
    read = text(snapshots.healthy())
    assert read.startswith(
        "harvester 13:41:07 UTC Healthy 6,458 pairs not read yet; 80,000 pairs waiting for "
        "the next reading, the first in 2 h; "
        "none at risk."
    )
    assert "The nearest deadline is in 1 d 16 h (Thu 26 Nov 06:29 UTC)." in read


def test_alerts_come_first_the_most_urgent_on_top():
    """Deadlines come before conditions, and each alert appears once."""
    first = text(snapshots.unhealthy()).partition(" eu at risk 1,342")[0]
    for reason in (
        'Not healthy Workspace "eu": 1,342 pairs at risk of expiring unread; the nearest deadline is in 25 min',
        'Workspace "us" is halted: status 401: Invalid API key (for 1 h 23 min)',
        'Every request of workspace "eu" fails: cannot connect to https://rest.fra-01.braze.eu: connection refused',
        "Parts cannot be stored: s3://lake answers 503 SlowDown",
        'Trigger "sends" is not connected: connection refused by rabbit.internal:5671 (for 5 min)',
        "The books do not balance",
        "eu waits until 14:00:01 UTC (in 18 min) for the rate limit",
        "us waits until 13:46:19 UTC (in 5 min) for the next probe, because it is halted",
    ):
        assert first.count(reason) == 1, reason


def test_books_are_shown_as_a_sum():
    """All terms of accepted = captured + rejected + expired + pending are visible."""
    read = text(
        replace(
            snapshots.healthy(),
            books=Books(100, {Verdict.ZERO: 7, Verdict.EMPTY: 3}, {"status_400": 1}, 2, 87),
        )
    )
    assert (
        "Books balanced 100 accepted 10 captured zero 7, empty 3 1 rejected status 400 1 2 expired 87 pending "
        "A pair is pending until its last reading is done." in read
    )


def test_old_figures_are_marked_as_not_healthy():
    """If the ledger cannot be read, the page shows the old figures and says that the service is not healthy."""
    read = text(snapshots.healthy(), "the ledger cannot be used: disk I/O error")
    assert "Not healthy The ledger cannot be used: disk I/O error" in read
    assert "86,458 pending" in read
    assert "The ledger cannot be used" in text(None, "the ledger cannot be used")


def test_a_window_that_has_ended_is_not_drawn():
    """After a window has ended, the page says that the quota is unknown."""
    quiet = snapshots.build_workspace(
        window=replace(snapshots.build_workspace().window, resets_at=snapshots.NOW - 7200)
    )
    assert "Unknown: no request since the window reset, 2 h ago." in text(
        replace(snapshots.healthy(), workspaces=(quiet,))
    )


def test_a_new_service_has_a_page():
    """The page of a new service shows unknown values without an error."""
    assert "Nothing is pending." in text(Snapshot(taken_at=snapshots.NOW, started_at=snapshots.NOW))


def render_with(each: str) -> str:
    """Render a page on which every text from outside is ``each``."""
    rejection = Rejection(Pair(each, each, each), each, each, snapshots.NOW)
    halted = replace(
        snapshots.build_workspace(), halt_reason=each, halted_since=0, hold_cause=each, responses={each: 1}
    )
    trigger = TriggerState(each, each, connected=False, last_error=each + ".", messages={each: 1})
    snapshot = replace(
        snapshots.healthy(),
        rejections=(rejection,),
        workspaces=(halted,),
        triggers=(trigger,),
        conditions=tuple(Condition(component, each, snapshots.NOW, each, each) for component in Component),
    )
    return render_page(Health(snapshot, each or "x"), now=snapshots.NOW)


@pytest.fixture(scope="module")
def plain_tags():
    """Return the elements of the page with plain texts."""
    return Elements(render_with("plain")).tags


@given(harm=st.text())
def test_text_from_outside_never_becomes_markup(plain_tags, harm):
    """Whatever ids, responses and errors contain, the page has the same elements."""
    document = render_with(harm)
    assert Elements(document).tags == plain_tags
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", document)


def test_a_large_service_still_has_a_small_page():
    """Four workspaces and ten rejections with long texts take less than 50 KB."""
    rejections = tuple(
        Rejection(Pair("eu", "c" * 64, f"{n:064}"), "status_400", "<" * 200, snapshots.NOW) for n in range(10)
    )
    workspaces = tuple(replace(snapshots.build_workspace(), name=name) for name in ("eu", "us", "jp", "au"))
    large = replace(snapshots.healthy(), rejections=rejections, workspaces=workspaces)
    assert len(render_page(Health(large), now=snapshots.NOW).encode()) < 50_000


def state(*, requests: int, remaining: int, left: float, limit: int = 1000) -> PaceState:
    """The state of a pacer."""
    return PaceState(
        pace=1.0,
        limit=limit,
        remaining=remaining,
        reserve_requests=200,
        seconds_to_reset=left,
        in_flight=0,
        hold_cause=None,
        held_seconds=0,
        holds_in_a_row=0,
        requests=requests,
        throttled=0,
        waited_seconds=0,
        answered=True,
    )


def test_requests_that_the_window_counts_and_we_did_not_send_are_of_others():
    """The history survives resets, and there is no window before the first response."""
    history = QuotaHistory()
    history.sample(state(requests=0, remaining=0, left=0, limit=0), 0.0)
    assert history.window.limit == 0
    history.sample(state(requests=10, remaining=900, left=3000), 600.0)
    assert (history.window.ours, history.window.others, history.window.resets_at) == (10, 90, 3600.0)
    history.sample(state(requests=110, remaining=700, left=2000), 1600.0)
    assert (history.window.ours, history.window.others) == (110, 190)
    history.sample(state(requests=110, remaining=700, left=0), 3601.0)
    history.sample(state(requests=111, remaining=950, left=3598), 3602.0)
    assert (history.window.ours, history.window.others, history.window.began_at) == (1, 49, 3600.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 400), st.integers(0, 400)), max_size=2000), st.integers())
def test_the_history_of_a_window_is_short_and_never_decreases(samples, seed):
    """However often the pacer is sampled, there are at most 62 samples."""
    history, now, requests, lost = QuotaHistory(), 0.0, 0, 0
    jitter = random.Random(seed)
    for wait, ours, others in samples:
        now, requests, lost = now + wait, requests + ours, lost + ours + others
        if now >= 3600:
            break
        history.sample(
            state(requests=requests, remaining=10**7 - lost, left=3600 - now + jitter.random(), limit=10**7), now
        )
    series = history.window.spent
    assert len(series) <= 62
    assert all(a.at <= b.at and a.ours <= b.ours and a.others <= b.others for a, b in pairwise(series))
    assert not series or series[-1].ours + series[-1].others == lost


@pytest.mark.parametrize("count", [0, 7, 999, 1000, 9_949, 9_999, 10_000, 999_999, 1_000_000, 12_345_678])
def test_counts_in_narrow_places_have_four_characters_at_most(count):
    """A phone shows fifteen of them side by side."""
    assert len(compact(count)) <= 4


def test_a_replica_shows_itself_and_those_with_the_most_workspaces():
    """The page of one of a hundred replicas says how many workspaces are its own."""
    others = {f"r{number:02}": number % 50 for number in range(99)}
    page = text(replace(snapshots.healthy(), replicas=ReplicasState("z", others | {"z": 0})))
    assert "z (this one) 0 r49 49 r48 48 r98 48 r47 47" in page
    assert "other replicas 88" in page


def test_workspaces_that_no_replica_serves_are_named():
    """The page names them, the metrics count them."""
    replicas = ReplicasState("a", {"a": 1, "b": 1}, ("<eu>", "us"))
    snapshot = replace(snapshots.healthy(), replicas=replicas)
    assert "due for two minutes, but no replica requests them: <eu>, us" in text(snapshot)
    assert "harvester_unserved_workspaces 2.0" in encode_metrics(snapshot, "")[0].decode()
