"""Thirty days of a workspace, with Braze away, the process down, and the budget taken: nothing is lost."""

from collections import Counter

from benchmarks.month import month
from harvester.model import DAY_SECONDS


def test_every_send_of_a_month_has_its_final_capture(tmp_path):
    """Each send is read in the last day before Braze forgets it, whatever happened before; the books balance."""
    lived = month(sends_per_day=24, days=30, ledger=tmp_path / "ledger.db")
    assert lived.without_final(lived.starts_at + 30 * DAY_SECONDS) == []
    assert lived.books is not None
    assert lived.books.balanced
    assert lived.books.expired == 0
    captures = sum(lived.captures.values(), Counter())
    assert captures["final"] >= 24 * 15  # all sends of the first fifteen days
    assert max(map(len, lived.answered.values())) <= 7
