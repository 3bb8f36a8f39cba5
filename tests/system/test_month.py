"""Thirty days of a workspace, with Braze away, the process down, and the budget taken: nothing is lost."""

from collections import Counter

import pytest

from benchmarks.measure.month import BRAZE_AWAY, Month, month
from benchmarks.measure.soak import Soak
from harvester.model import DAY_SECONDS

pytestmark = pytest.mark.xdist_group("month")  # which is lived through once


@pytest.fixture(scope="module")
def lived_and_held(tmp_path_factory) -> tuple[Month, Soak]:
    """A month, and what the process held on each of its days."""
    soak = Soak()
    ledger = tmp_path_factory.mktemp("month") / "ledger.db"
    return month(sends_per_day=24, days=30, ledger=ledger, look=soak.look), soak


def test_every_send_of_a_month_has_its_final_capture(lived_and_held):
    """Each send is read in the last day before Braze forgets it, whatever happened before; the books balance."""
    lived, _ = lived_and_held
    assert lived.without_final(lived.starts_at + 30 * DAY_SECONDS) == []
    assert lived.books is not None
    assert lived.books.balanced
    assert lived.books.expired == 0
    captures = sum(lived.captures.values(), Counter())
    assert captures["final"] >= 24 * 15  # all sends of the first fifteen days
    assert max(map(len, lived.answered.values())) <= 7


def test_what_braze_did_not_answer_is_asked_again_and_answered(lived_and_held):
    """Calls fail while Braze is away and none is answered; within hours of its return each has been made up for."""
    lived, _ = lived_and_held
    began, ended = (lived.starts_at + day * DAY_SECONDS for day in BRAZE_AWAY)
    assert lived.unanswered
    assert all(began <= at < ended for times in lived.unanswered.values() for at in times)
    assert not [at for times in lived.answered.values() for at in times if began <= at < ended]
    back = {send: min(at for at in lived.answered[send] if at >= ended) for send in lived.unanswered}
    assert max(back.values()) < ended + 3 * 3600


def test_what_a_service_holds_does_not_grow(lived_and_held):
    """Memory, open files and tasks are as many in the last days of a month as they were when the process was young."""
    _, soak = lived_and_held
    early, late = soak.early_and_late()
    assert late.day - early.day >= 7
    assert late.blocks <= 1.02 * early.blocks
    assert late.open_files <= early.open_files
    assert late.tasks <= early.tasks
