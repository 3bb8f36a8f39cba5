"""Fixtures: a ledger that many examples share."""

import asyncio

import pytest

from harvester.ledger import Ledger
from tests.support.clocks import SettableClock
from tests.support.ledger_file import DATABASES


@pytest.fixture(scope="module", params=DATABASES)
def shared(request, create_location):
    """One ledger of each kind for all examples, its clock, and a function that awaits its methods."""
    clock = SettableClock(1_795_527_667.0)
    with create_location(request.param) as location, asyncio.Runner() as runner:
        ledger = runner.run(Ledger.open(location, clock=clock))
        yield ledger, clock, runner.run
        runner.run(ledger.close())
