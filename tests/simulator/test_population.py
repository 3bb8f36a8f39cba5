"""Tests of the sends that the stand-in generates."""

from harvester.model import DAY_SECONDS, MAX_ID_CHARACTERS
from harvester.simulator import Simulator, SimulatorConfig, generate_population
from tests.support.clocks import SettableClock
from tests.support.stand_in import MIDNIGHT, NOW, TODAY


def test_the_sends_are_repeatable_and_have_ids_of_every_form():
    """Ids are unique and valid, and some have difficult characters. All sends are from the 13 days before the day."""
    sends = list(generate_population(seed=7, pairs=2000, day=TODAY))
    assert sends == list(generate_population(seed=7, pairs=2000, day=TODAY))
    assert {each.pair for each in sends}.isdisjoint(
        each.pair for each in generate_population(seed=8, pairs=2000, day=TODAY)
    )
    assert len({each.pair for each in sends}) == 2000
    ids = [each.pair.send_id for each in sends]
    assert all(send_id.isascii() and 0 < len(send_id) <= MAX_ID_CHARACTERS for send_id in ids)
    assert any(send_id.isdigit() for send_id in ids)
    for character in "&#/?+% =.":
        assert any(character in send_id for send_id in ids)
    assert all(0 <= MIDNIGHT - each.sent_at <= 13 * DAY_SECONDS for each in sends)


def test_an_old_list_of_sends_stays_valid():
    """Later on the same day, or on another day with ``--day``, the same sends have the same times."""
    first = Simulator(SimulatorConfig(pairs=60), SettableClock(MIDNIGHT + 1))
    later = Simulator(SimulatorConfig(pairs=60), SettableClock(MIDNIGHT + 86_399))
    days_later = Simulator(SimulatorConfig(pairs=60, day=TODAY), SettableClock(NOW + 9 * DAY_SECONDS))
    assert first.population == later.population == days_later.population
    assert first.day == TODAY
