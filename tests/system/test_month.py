"""The service for thirty virtual days, with outages of Braze and the process and little quota, loses nothing."""

import gc
from collections import Counter

import pytest

from benchmarks.measure.month import BRAZE_UNAVAILABLE, Month, month
from benchmarks.measure.soak import Soak
from harvester.model import DAY_SECONDS

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("month")]  # the month runs once

SENDS_PER_DAY = 6


@pytest.fixture(scope="module")
def month_and_soak(tmp_path_factory) -> tuple[Month, Soak]:
    """Run a month, and measure the process once a day."""
    soak = Soak(tmp_path_factory.mktemp("month") / "ledger.db")
    gc.freeze()  # what existed before is not searched for garbage each day
    try:
        return month(sends_per_day=SENDS_PER_DAY, days=30, ledger=soak.ledger, on_sample=soak.sample), soak
    finally:
        gc.unfreeze()


def test_every_send_of_a_month_has_its_final_capture(month_and_soak):
    """Each final capture is on the last day before Braze deletes the analytics, and the books balance."""
    result, _ = month_and_soak
    assert result.list_sends_without_final(result.starts_at + 30 * DAY_SECONDS) == []
    assert result.books is not None
    assert result.books.balanced
    assert result.books.expired == 0
    captures = sum(result.captures.values(), Counter())
    assert captures["final"] >= SENDS_PER_DAY * 15  # all sends of the first fifteen days
    assert max(map(len, result.answered.values())) <= 7


def test_requests_that_failed_during_an_outage_are_repeated(month_and_soak):
    """Within three hours after the outage, each send has a response."""
    result, _ = month_and_soak
    began, ended = (result.starts_at + day * DAY_SECONDS for day in BRAZE_UNAVAILABLE)
    assert result.unanswered
    assert all(began <= at < ended for times in result.unanswered.values() for at in times)
    assert not [at for times in result.answered.values() for at in times if began <= at < ended]
    first_response_after = {send: min(at for at in result.answered[send] if at >= ended) for send in result.unanswered}
    assert max(first_response_after.values()) < ended + 3 * 3600


def test_memory_files_and_tasks_of_the_service_do_not_grow(month_and_soak):
    """After weeks, the service uses no more memory, files and tasks than in its first days."""
    _, soak = month_and_soak
    early, late = soak.early_and_late()
    assert late.day - early.day >= 7
    assert late.blocks <= 1.02 * early.blocks
    assert late.open_files <= early.open_files
    assert late.tasks <= early.tasks
