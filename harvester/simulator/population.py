"""Generates the sends that exist. They depend only on a seed and a day, so an old list of them stays valid.

Documented: a send id is opaque ASCII text of at most 64 characters. Recorded: UUIDs, free text and digits. Characters
that are reserved in URLs are allowed. All of these occur here. The same send id in two campaigns would be two sends.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from uuid import UUID

from harvester.model import DAY_SECONDS, Pair, SentPair
from harvester.simulator.random_draw import random_draw

SENDS_PER_CAMPAIGN = 25
SENT_OVER_DAYS = 13
"""No send expires on the stand-in's first day. The oldest one expires soon after it."""


def generate_population(*, seed: int, pairs: int, day: date, workspace: str = "default") -> Iterator[SentPair]:
    """Yield the sends that exist. All are sent during the 13 days before the start of ``day`` in UTC.

    The ids depend only on the seed. With another day, the same sends have other times.
    """
    day_start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    campaign_id = ""
    for index in range(pairs):
        if index % SENDS_PER_CAMPAIGN == 0:
            campaign_id = _format_uuid(random_draw(seed, "campaign", index // SENDS_PER_CAMPAIGN))
        age_seconds = random_draw(seed, "age", index) % int(SENT_OVER_DAYS * DAY_SECONDS)
        yield SentPair(Pair(workspace, campaign_id, _create_send_id(seed, index)), day_start - age_seconds)


def _create_send_id(seed: int, index: int) -> str:
    """Create the id of the send with this index. Most ids are plain; the others have every difficult form."""
    if index % 10 < 6:
        return f"send-{index:07d}"
    match index % 4:
        case 0:
            return _format_uuid(random_draw(seed, "send", index))
        case 1:
            return f"{random_draw(seed, 'send', index) % 10**12:012d}"
        case 2:
            return f"spring/sale & 50%25 off #{index}"
        case _:
            return f"../{index}?length=1+1"


def _format_uuid(number: int) -> str:
    return str(UUID(int=number << 64 | number, version=4))
