"""The plan of readings, as pure functions: when a pair expires, and when a deferred reading is due again."""

import random

from harvester.model import GRACE_SECONDS, RETENTION_SECONDS

ONCE = "once"
"""The one reading of a historical capture, due as soon as it is enqueued."""

DEFERRAL_FIRST_SECONDS = 5.0
DEFERRAL_MAX_SECONDS = 3600.0


def expires_at(sent_at: float | None, first_seen_at: float) -> float:
    """Give the time after which a pair is no longer asked: retention and grace after its send.

    An unknown send cannot be later than its first sight, so that is where its clock starts.
    """
    return (first_seen_at if sent_at is None else sent_at) + RETENTION_SECONDS + GRACE_SECONDS


def deferral_seconds(deferrals: int, jitter: random.Random) -> float:
    """Give the delay before a reading is due again, after it was deferred ``deferrals`` times before.

    It doubles from five seconds to an hour, with a quarter of jitter so that a herd does not come back as one.
    """
    delay = min(DEFERRAL_FIRST_SECONDS * 2.0 ** min(deferrals, 20), DEFERRAL_MAX_SECONDS)
    return delay * jitter.uniform(0.75, 1.0)
