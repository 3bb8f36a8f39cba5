"""A stand-in on a clock that the test moves, and its series."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime

import aiohttp
from hypothesis import strategies as st

from harvester.simulator import Simulator, SimulatorConfig, population
from harvester.simulator.neighbour import Bursty, Campaign, Steady
from harvester.simulator.request import parse_request
from harvester.simulator.series import answer

KEY = "canary-key-0123456789"
TODAY = date(2026, 1, 14)
MIDNIGHT = datetime(2026, 1, 14, tzinfo=UTC).timestamp()
NOW = MIDNIGHT + 12 * 3600
QUOTA_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class HandClock:
    """A clock that the test moves."""

    def __init__(self, now=NOW):
        """Start at ``now``."""
        self.now = now

    def wall(self):
        """UTC seconds since the epoch."""
        return self.now

    def monotonic(self):
        """Seconds, for intervals."""
        return self.now


fractions = st.floats(0.01, 1)
neighbours = st.one_of(
    st.builds(Steady, fractions),
    st.builds(Bursty, fractions, burst_seconds=st.floats(0.1, 30), every_seconds=st.floats(30, 600)),
    st.builds(Campaign, fractions, starts_at_fraction=st.floats(0, 0.99), lasts_fraction=fractions),
)


def request_series(each, now=NOW, *, ending_at=None, length=14, sent_at=..., unknown_pairs="zero"):
    """Return the verdict and the series of a send at ``now``."""
    ending = datetime.fromtimestamp(now if ending_at is None else ending_at, UTC).isoformat()
    query = {"campaign_id": each.pair.campaign_id, "send_id": each.pair.send_id, "length": str(length)}
    verdict, body = answer(
        parse_request(query | {"ending_at": ending}, now),
        seed=7, sent_at=each.sent_at if sent_at is ... else sent_at, now=now, unknown_pairs=unknown_pairs,
    )  # fmt: skip
    return verdict, json.loads(body)


def numbers(found):
    """Return all counters of a series, in the order of their days: date, place, name, value."""
    for day in found["data"]:
        for name, value in day.items():
            if name not in ("time", "messages"):
                yield day["time"], "day", name, value
        for channel, variations in day["messages"].items():
            for variation in variations:
                for name, value in variation.items():
                    if name != "variation_name":
                        yield day["time"], (channel, variation["variation_name"]), name, value


def sends_of(pairs=300):
    """Return the sends that the tests use."""
    return list(population(seed=7, pairs=pairs, day=TODAY))


@asynccontextmanager
async def serving(clock=None, **config):
    """Run a stand-in; yield it and a function that requests its first pair by default."""
    simulator = Simulator(SimulatorConfig(**{"pairs": 50, "api_key": KEY} | config), clock or HandClock())
    async with simulator, aiohttp.ClientSession() as session:
        session._retry_connection = False  # aiohttp would repeat requests, and the test count them twice
        pair = simulator.population[0].pair
        usual = {"campaign_id": pair.campaign_id, "send_id": pair.send_id, "length": "14"}

        async def ask(path="/sends/data_series", authorization=f"Bearer {KEY}", method="GET", **query):
            given = {name: value for name, value in (usual | query).items() if value is not None}
            headers = {"Authorization": authorization} if authorization is not None else {}
            async with session.request(
                method, simulator.url + path, params=given, headers=headers, allow_redirects=False
            ) as response:
                return response.status, response.headers, await response.read()

        yield simulator, ask
