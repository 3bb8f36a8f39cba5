"""The sends that exist. They follow from a seed and a day, so that a list written once stays valid.

Send ids are opaque, all ASCII and at most 64 characters (documented); UUIDs, free text and digits were seen, and
reserved URL characters are legal, so all of them occur. One send id in two campaigns would be two sends.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from uuid import UUID

from harvester.model import DAY_SECONDS, Pair, SentPair
from harvester.simulator.random_draw import draw

SENDS_PER_CAMPAIGN = 25
SENT_OVER_DAYS = 13
"""No send expires on the stand-in's first day; the oldest does soon after."""


def population(*, seed: int, pairs: int, day: date, workspace: str = "default") -> Iterator[SentPair]:
    """Yield the sends that exist, sent during the 13 days before ``day`` began in UTC.

    Ids follow from the seed alone: another day has the same sends, sent at other times.
    """
    began = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    campaign_id = ""
    for index in range(pairs):
        if index % SENDS_PER_CAMPAIGN == 0:
            campaign_id = _uuid(draw(seed, "campaign", index // SENDS_PER_CAMPAIGN))
        age_seconds = draw(seed, "age", index) % int(SENT_OVER_DAYS * DAY_SECONDS)
        yield SentPair(Pair(workspace, campaign_id, _send_id(seed, index)), began - age_seconds)


def _send_id(seed: int, index: int) -> str:
    """Return mostly plain ids, and some of every awkward shape."""
    if index % 10 < 6:
        return f"send-{index:07d}"
    match index % 4:
        case 0:
            return _uuid(draw(seed, "send", index))
        case 1:
            return f"{draw(seed, 'send', index) % 10**12:012d}"
        case 2:
            return f"spring/sale & 50%25 off #{index}"
        case _:
            return f"../{index}?length=1+1"


def _uuid(number: int) -> str:
    return str(UUID(int=number << 64 | number, version=4))
