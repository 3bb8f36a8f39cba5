"""Pairs that expire are logged, each of them once."""

from harvester.model import DAY_SECONDS, Pair, SentPair
from tests.support.observed_service import Seen, Wire, arrivals, served


def test_an_expired_pair_is_logged_once(tmp_path):
    """Both the housekeeping of a halted workspace and claims expire pairs. A restart logs none of them again."""
    wire = Wire()
    wire.remaining = 100_000

    async def story(seen: Seen) -> None:
        sent_at = seen.clock.wall() - 20 * DAY_SECONDS
        expired = [SentPair(Pair("us", "old", f"s{number}"), sent_at) for number in range(5)]
        await seen.enqueue(1, "us")  # its response confirms the time
        await seen.at(400)
        wire.outage = 401
        await seen.service.enqueue(arrivals(2, "us"), once=True)
        await seen.at(450)
        await seen.ledger.intake.enqueue(expired[:3])
        await seen.at(650)
        assert (await seen.ledger.reports.count_expired()) == {"us": 3}, "housekeeping expired them"
        wire.outage = None
        await seen.at(1100)
        await seen.service.enqueue(expired[3:], once=False)
        await seen.at(1150)
        assert (await seen.ledger.reports.count_expired()) == {"us": 5}, "a claim expired the others"
        await seen.at(3100)
        assert [(each["workspace"], each["pairs"]) for each in seen.events("pairs_expired")] == [("us", 3), ("us", 2)]

    served(tmp_path, {"us": wire}, story)

    async def after_restart(seen: Seen) -> None:
        await seen.at(1900)
        assert seen.events("pairs_expired") == []

    served(tmp_path, {"us": wire}, after_restart)
