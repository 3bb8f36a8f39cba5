"""The sends that exist."""

from harvester.model import DAY_SECONDS, MAX_ID_CHARACTERS
from harvester.simulator import Simulator, SimulatorConfig, population
from tests.support.stand_in import MIDNIGHT, NOW, TODAY, HandClock


def test_the_sends_are_repeatable_and_have_awkward_ids():
    """Ids are unique, valid and of several shapes. All sends are from the 13 days before the day."""
    sends = list(population(seed=7, pairs=2000, day=TODAY))
    assert sends == list(population(seed=7, pairs=2000, day=TODAY))
    assert {each.pair for each in sends}.isdisjoint(each.pair for each in population(seed=8, pairs=2000, day=TODAY))
    assert len({each.pair for each in sends}) == 2000
    ids = [each.pair.send_id for each in sends]
    assert all(send_id.isascii() and 0 < len(send_id) <= MAX_ID_CHARACTERS for send_id in ids)
    assert any(send_id.isdigit() for send_id in ids)
    for character in "&#/?+% =.":
        assert any(character in send_id for send_id in ids)
    assert all(0 <= MIDNIGHT - each.sent_at <= 13 * DAY_SECONDS for each in sends)


def test_a_list_written_once_stays_valid():
    """Later that day, or on another day with ``--day``, the same sends have the same times."""
    first = Simulator(SimulatorConfig(pairs=60), HandClock(MIDNIGHT + 1))
    later = Simulator(SimulatorConfig(pairs=60), HandClock(MIDNIGHT + 86_399))
    days_later = Simulator(SimulatorConfig(pairs=60, day=TODAY), HandClock(NOW + 9 * DAY_SECONDS))
    assert first.population == later.population == days_later.population
    assert first.day == TODAY
