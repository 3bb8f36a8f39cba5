"""The plan of readings: when a pair is read, when it expires, when a deferred reading is due again. Pure.

A pair's age counts from its send, or from when it was first seen if the time of its send is unknown. Readings are named
after the age at which they fall due: ``d1`` after a day, and the last one ``final``. Due times are rounded up to five
minutes in all workspaces alike, so that their readings share batches and parts.
"""

import random
from dataclasses import dataclass

from harvester.model import DAY_SECONDS, GRACE_SECONDS, RETENTION_SECONDS, reading_name

ONCE = "once"
"""The one reading of a historical capture, due as soon as it is enqueued."""

IMMEDIATE = "d0"
"""The first reading of a pair whose time of send is unknown: the send may have any age."""

FINAL = "final"

DEFERRAL_FIRST_SECONDS = 5.0
DEFERRAL_MAX_SECONDS = 3600.0
ROUNDING_SECONDS = 300.0

MARGIN_SECONDS = DAY_SECONDS / 4
"""How long the planning deadline is before the end of retention. A pair that is not read by then is at risk."""

LAST_AGE_DAYS = (RETENTION_SECONDS - MARGIN_SECONDS) / DAY_SECONDS
"""The greatest age of a reading: that of the planning deadline."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A planned reading: its name and its due time."""

    name: str
    due_at: float


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """When each pair of a workspace is read: ages in days since the send, ascending. The last is the final reading.

    Without ages, a pair is read once, immediately.
    """

    ages_days: tuple[float, ...] = ()

    @property
    def readings(self) -> tuple[tuple[str, float], ...]:
        """Return each reading's name and the age in seconds at which it falls due."""
        last = len(self.ages_days) - 1
        return tuple(
            (FINAL if index == last else reading_name(days), days * DAY_SECONDS)
            for index, days in enumerate(self.ages_days)
        )

    def expires_at(self, since: float) -> float:
        """Return the time after which a pair is no longer requested: retention and grace after ``since``."""
        return since + RETENTION_SECONDS + GRACE_SECONDS

    def first(self, sent_at: float | None, now: float) -> Planned:
        """Plan the first reading of a pair at ``now``. One reading replaces all that are overdue."""
        if not self.ages_days:
            return Planned(ONCE, now)
        if sent_at is None:
            return Planned(IMMEDIATE, now)
        overdue = [name for name, age in self.readings if sent_at + age <= now]
        return Planned(overdue[-1], now) if overdue else self._plan_at_age(*self.readings[0], sent_at)

    def after(self, name: str, since: float, now: float) -> Planned | None:
        """Plan the reading after ``name``, which was requested at ``now``; None after the last."""
        if name == ONCE:
            return None
        names = [each for each, _ in self.readings]
        if name in names:
            later = self.readings[names.index(name) + 1 :]
        else:  # the immediate reading, or one of an earlier configuration
            later = tuple(each for each in self.readings if since + each[1] > now)
        return self._plan_at_age(*later[0], since) if later else None

    def _plan_at_age(self, name: str, age_seconds: float, since: float) -> Planned:
        """Plan a reading at an age. Its due time is rounded up, but never past the planning deadline."""
        step_seconds = min(ROUNDING_SECONDS, self.readings[0][1] / 24)
        due_at = since + age_seconds
        rounded = due_at + -due_at % step_seconds
        return Planned(name, max(due_at, min(rounded, since + RETENTION_SECONDS - MARGIN_SECONDS)))


SINGLE_READING_PLAN = ReadingPlan()
"""The plan of a historical capture."""


def count_deferrals(seconds: float) -> int:
    """Count the deferrals in a row whose delays together last at most ``seconds``."""
    count, waited = 0, DEFERRAL_FIRST_SECONDS
    while waited <= seconds:
        count += 1
        waited += min(DEFERRAL_FIRST_SECONDS * 2.0**count, DEFERRAL_MAX_SECONDS)
    return count


def deferral_seconds(deferrals: int, jitter: random.Random) -> float:
    """Return the delay of a reading that was deferred ``deferrals`` times before.

    It doubles from five seconds to an hour. A random part of up to a quarter is subtracted, so that readings that were
    deferred together are not all due at once.
    """
    delay = min(DEFERRAL_FIRST_SECONDS * 2.0 ** min(deferrals, 20), DEFERRAL_MAX_SECONDS)
    return delay * jitter.uniform(0.75, 1.0)
