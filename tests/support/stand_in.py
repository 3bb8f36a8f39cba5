"""A stand-in API on a clock that the test sets, and the series that it returns."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime

import aiohttp
from hypothesis import strategies as st

from harvester.simulator import Simulator, SimulatorConfig, generate_population
from harvester.simulator.neighbour import Bursty, Campaign, Steady
from harvester.simulator.request import parse_request
from harvester.simulator.series import compute_series
from tests.support.clocks import SettableClock

KEY = "canary-key-0123456789"
TODAY = date(2026, 1, 14)
MIDNIGHT = datetime(2026, 1, 14, tzinfo=UTC).timestamp()
NOW = MIDNIGHT + 12 * 3600
QUOTA_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")

fractions = st.floats(0.01, 1)
neighbours = st.one_of(
    st.builds(Steady, fractions),
    st.builds(Bursty, fractions, burst_seconds=st.floats(0.1, 30), every_seconds=st.floats(30, 600)),
    st.builds(Campaign, fractions, starts_at_fraction=st.floats(0, 0.99), lasts_fraction=fractions),
)


def compute_series_of(send, now=NOW, *, ending_at=None, length=14, sent_at=..., unknown_pairs="zero"):
    """Return the verdict and the decoded series of a send at ``now``."""
    ending = datetime.fromtimestamp(now if ending_at is None else ending_at, UTC).isoformat()
    query = {"campaign_id": send.pair.campaign_id, "send_id": send.pair.send_id, "length": str(length)}
    request = parse_request(query | {"ending_at": ending}, now)
    sent_at = send.sent_at if sent_at is ... else sent_at
    verdict, body = compute_series(request, seed=7, sent_at=sent_at, now=now, unknown_pairs=unknown_pairs)
    return verdict, json.loads(body)


def list_counters(series):
    """Yield all counters of a series, ordered by day: date, place, name, value.

    The place is the channel and the variation, or ``day`` for the totals of a day.
    """
    for day in series["data"]:
        for name, value in day.items():
            if name not in ("time", "messages"):
                yield day["time"], "day", name, value
        for channel, variations in day["messages"].items():
            for variation in variations:
                for name, value in variation.items():
                    if name != "variation_name":
                        yield day["time"], (channel, variation["variation_name"]), name, value


def generate_sends(pairs=300):
    """Return the sends that the tests use."""
    return list(generate_population(seed=7, pairs=pairs, day=TODAY))


@asynccontextmanager
async def run_stand_in(clock=None, **config):
    """Run a stand-in; yield it and a function that sends a request, by default for its first pair."""
    simulator = Simulator(SimulatorConfig(**{"pairs": 50, "api_key": KEY} | config), clock or SettableClock(NOW))
    async with simulator, aiohttp.ClientSession() as session:
        session._retry_connection = False  # otherwise aiohttp repeats requests, and the test counts them twice
        pair = simulator.population[0].pair
        default_query = {"campaign_id": pair.campaign_id, "send_id": pair.send_id, "length": "14"}

        async def send_request(path="/sends/data_series", authorization=f"Bearer {KEY}", method="GET", **query):
            params = {name: value for name, value in (default_query | query).items() if value is not None}
            headers = {"Authorization": authorization} if authorization is not None else {}
            async with session.request(
                method, simulator.url + path, params=params, headers=headers, allow_redirects=False
            ) as response:
                return response.status, response.headers, await response.read()

        yield simulator, send_request
