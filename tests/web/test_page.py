"""The status page as text: what it says, and that nobody's text becomes part of it."""

import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.braze.pacer import PaceState
from harvester.formatting import compact
from harvester.health import Condition, Part
from harvester.ledger.outlook import Rejection
from harvester.model import Books, Pair, Verdict
from harvester.monitor.health import Health
from harvester.monitor.history import BudgetHistory
from harvester.monitor.snapshot import Snapshot, TriggerState
from harvester.web.page import render_page
from tests.support import browser_text


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
    """What a person reads, blanks as they are shown."""
    main = render_page(Health(snapshot, problem), now=browser_text.NOW).partition("<main>")[2].partition("</main>")[0]
    return " ".join(Elements(main).text.split())


def test_all_is_well_in_the_first_words():
    """Who is woken reads one word, and then how far away the next trouble is."""
    read = text(browser_text.healthy())
    assert read.startswith(
        "harvester 13:41:07 UTC Healthy 6,458 pairs not read yet; 80,000 pairs waiting for "
        "the next reading, the first in 2 h; "
        "none at risk."
    )
    assert "The nearest deadline is in 1 d 16 h, Thu 26 Nov 06:29 UTC." in read


def test_what_is_wrong_comes_first_and_in_words():
    """What runs out of time stands before all else; each thing is said once, with what it waits for."""
    first = text(browser_text.unhealthy()).partition(" eu at risk 1,342")[0]
    for reason in (
        'Not healthy Workspace "eu": 1,342 pairs at risk of expiring unread; the nearest deadline is in 25 min',
        'Workspace "us" is halted: status 401: Invalid API key, for 1 h 23 min',
        'Every request of workspace "eu" fails: cannot connect to https://rest.fra-01.braze.eu: connection refused',
        "Parts cannot be stored: s3://lake answers 503 SlowDown",
        'Trigger "sends" is not connected: connection refused by rabbit.internal:5671, for 5 min',
        "The books do not balance",
        "eu waits for the rate limit, in 18 min (14:00:01 UTC)",
        "us waits for the next probe, because it is halted, in 5 min (13:46:19 UTC)",
    ):
        assert first.count(reason) == 1, reason


def test_books_are_shown_as_the_sum_that_they_are():
    """Every term of accepted = captured + rejected + expired + pending can be checked by hand, and is explained."""
    read = text(
        replace(browser_text.healthy(), books=Books(100, {Verdict.ZERO: 7, Verdict.EMPTY: 3}, {"status_400": 1}, 2, 87))
    )
    assert (
        "Books balanced 100 accepted 10 captured zero 7, empty 3 1 rejected status 400 1 2 expired 87 pending "
        "A pair is pending until its last reading is done." in read
    )


def test_figures_that_are_old_are_said_to_be():
    """A ledger that cannot be read must not look like a quiet night."""
    read = text(browser_text.healthy(), "the ledger cannot be used: disk I/O error")
    assert "Not healthy The ledger cannot be used: disk I/O error" in read
    assert "86,458 pending" in read
    assert "The ledger cannot be used" in text(None, "the ledger cannot be used")


def test_a_window_that_has_ended_is_not_drawn_as_if_it_lasted():
    """A quiet workspace knows nothing of the present window, and its page says so."""
    quiet = browser_text.workspace(window=replace(browser_text.workspace().window, resets_at=browser_text.NOW - 7200))
    assert "Unknown: no request since the window reset, 2 h ago." in text(
        replace(browser_text.healthy(), workspaces=(quiet,))
    )


def test_a_service_that_has_just_started_has_a_page():
    """Nothing is known yet, and that is no error."""
    assert "Nothing is pending." in text(Snapshot(taken_at=browser_text.NOW, started_at=browser_text.NOW))


@given(st.text())
def test_no_text_of_strangers_becomes_part_of_the_page(harm):
    """Ids, what Braze said and what brokers say may hold anything: the elements of the page stay the same."""

    def with_text(each: str) -> Snapshot:
        rejection = Rejection(Pair(each, each, each), each, each, browser_text.NOW)
        halted = replace(
            browser_text.workspace(), halt_reason=each, halted_since=0, hold_cause=each, responses={each: 1}
        )
        trigger = TriggerState(each, each, connected=False, last_error=each + ".", messages={each: 1})
        return replace(
            browser_text.healthy(),
            rejections=(rejection,),
            workspaces=(halted,),
            triggers=(trigger,),
            conditions=tuple(Condition(part, each, browser_text.NOW, each, each) for part in Part),
        )

    document = render_page(Health(with_text(harm), harm or "x"), now=browser_text.NOW)
    assert (
        Elements(document).tags == Elements(render_page(Health(with_text("plain"), "plain"), now=browser_text.NOW)).tags
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", document)


def test_a_large_service_still_has_a_small_page():
    """Four workspaces, many triggers and rejects with long texts stay under 50 KB."""
    rejections = tuple(
        Rejection(Pair("eu", "c" * 64, f"{n:064}"), "status_400", "<" * 200, browser_text.NOW) for n in range(10)
    )
    workspaces = tuple(replace(browser_text.workspace(), name=name) for name in ("eu", "us", "jp", "au"))
    large = replace(browser_text.healthy(), rejections=rejections, workspaces=workspaces)
    assert len(render_page(Health(large), now=browser_text.NOW).encode()) < 50_000


def state(*, calls: int, remaining: int, left: float, limit: int = 1000) -> PaceState:
    """What a pacer says."""
    return PaceState(
        pace=1.0, limit=limit, remaining=remaining, reserve_calls=200, seconds_to_reset=left, in_flight=0,
        held_because=None, held_seconds=0, holds_in_a_row=0, calls=calls, throttled=0, waited_seconds=0, answered=True,
    )  # fmt: skip


def test_what_the_window_lost_and_we_did_not_spend_was_spent_by_others():
    """The picture of the budget can be trusted across resets, and before anything is known there is none."""
    history = BudgetHistory()
    history.sample(state(calls=0, remaining=0, left=0, limit=0), 0.0)
    assert history.window.limit == 0
    history.sample(state(calls=10, remaining=900, left=3000), 600.0)
    assert (history.window.ours, history.window.others, history.window.resets_at) == (10, 90, 3600.0)
    history.sample(state(calls=110, remaining=700, left=2000), 1600.0)
    assert (history.window.ours, history.window.others) == (110, 190)
    history.sample(state(calls=110, remaining=700, left=0), 3601.0)
    history.sample(state(calls=111, remaining=950, left=3598), 3602.0)
    assert (history.window.ours, history.window.others, history.window.began_at) == (1, 49, 3600.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 400), st.integers(0, 400)), max_size=2000), st.integers())
def test_the_series_of_a_window_is_short_and_only_grows(looks, seed):
    """However often one looks, the page stays small, and its curve never turns back."""
    history, now, calls, lost = BudgetHistory(), 0.0, 0, 0
    jitter = random.Random(seed)
    for wait, ours, others in looks:
        now, calls, lost = now + wait, calls + ours, lost + ours + others
        if now >= 3600:
            break
        history.sample(state(calls=calls, remaining=10**7 - lost, left=3600 - now + jitter.random(), limit=10**7), now)
    series = history.window.spent
    assert len(series) <= 62
    assert all(a.at <= b.at and a.ours <= b.ours and a.others <= b.others for a, b in pairwise(series))
    assert not series or series[-1].ours + series[-1].others == lost


@pytest.mark.parametrize("count", [0, 7, 999, 1000, 9_949, 9_999, 10_000, 999_999, 1_000_000, 12_345_678])
def test_counts_in_narrow_places_have_four_characters_at_most(count):
    """Fifteen of them stand side by side on a phone."""
    assert len(compact(count)) <= 4
