"""One workspace of the simulation of replicas: its readings, in the order of claims, and its quota."""

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field

from harvester.braze.quota import Quota, QuotaReport
from harvester.model import DAY_SECONDS, RETENTION_SECONDS
from harvester.schedule import FINAL, MARGIN_SECONDS, ReadingPlan
from harvester.settings.workspace import AGES_DAYS

HOUR_SECONDS = 3600.0
LIMIT, RESERVE = 250_000, 0.2
LATENCY_SECONDS = 0.15
PLAN = ReadingPlan(AGES_DAYS)


@dataclass(order=True, slots=True)
class Group:
    """Sends of one campaign whose reading is due at the same time. The order is that of claims."""

    deadline: float
    number: int
    sent_at: float = field(compare=False)
    due_at: float = field(compare=False)
    name: str = field(compare=False)
    size: int = field(compare=False)
    captured: bool = field(compare=False)
    """Whether an earlier reading was captured."""

    @property
    def at_risk_at(self) -> float:
        """The planning deadline."""
        return self.deadline - MARGIN_SECONDS


class _SampledQuota(Quota):
    """A quota that observes one response a step, too few to estimate harvester's share: the share is given."""

    own_share = 1.0

    @property
    def share(self) -> float:
        """Our fraction of all recent requests."""
        return self.own_share


class SimulatedWorkspace:
    """The readings of one workspace that are not requested yet, its quota, and when it is looked at next."""

    def __init__(self, name: str, live_share: float) -> None:
        """``live_share`` of the quota is used by live sending, evenly."""
        self.name = name
        self.next_at = math.inf
        self.waited: Counter[str] = Counter()
        """The seconds that due readings have waited, by the limit that they waited for."""
        self._waiting: list[tuple[float, int, Group]] = []
        self._first: list[Group] = []
        """Due final readings, and sends without a capture: they come before other readings."""
        self._later: list[Group] = []
        self._live_share = live_share
        self._quota = _SampledQuota(RESERVE)
        self._hour = -1
        self._used = 0
        self._last_at = self._last_rate = 0.0

    def add(self, group: Group) -> None:
        """Add readings that fall due later."""
        heapq.heappush(self._waiting, (group.due_at, group.number, group))

    def make_due(self, now: float) -> None:
        """Move the readings that have fallen due, and give those that have become final full priority."""
        while self._waiting and self._waiting[0][0] <= now:
            group = heapq.heappop(self._waiting)[2]
            heapq.heappush(self._later if group.captured and group.name != FINAL else self._first, group)
        final_at = RETENTION_SECONDS - AGES_DAYS[-1] * DAY_SECONDS
        while self._later and self._later[0].deadline <= now + final_at:
            heapq.heappush(self._first, heapq.heappop(self._later))

    def find_due(self) -> Group | None:
        """Return the due readings that are claimed next; None if nothing is due."""
        return self._first[0] if self._first else self._later[0] if self._later else None

    def remove_due(self) -> None:
        """Remove what ``find_due`` returns."""
        heapq.heappop(self._first or self._later)

    def find_next_due_at(self) -> float | None:
        """Return when the next reading falls due; None if none is planned."""
        return self._waiting[0][0] if self._waiting else None

    def find_pace(self, now: float) -> float:
        """Return the requests per second that the quota allows, after the report of one response."""
        hour = int(now // HOUR_SECONDS)
        if hour != self._hour:
            self._hour, self._used = hour, 0
        live_rate = self._live_share * LIMIT / HOUR_SECONDS
        left = max(0, round(LIMIT - live_rate * (now % HOUR_SECONDS) - self._used))
        report = QuotaReport(LIMIT, left, (hour + 1) * HOUR_SECONDS, math.floor(now))
        self._quota.own_share = self._find_share(now, live_rate)
        self._quota.observe(report, now)
        if self._quota.suspicious:  # live sending has used much since the last step: another response confirms it
            self._quota.observe(report, now)
        return self._quota.pace(now, in_flight=0, latency_seconds=LATENCY_SECONDS)

    def use(self, requests: int, now: float, seconds: float) -> None:
        """Count requests that were sent from ``now`` on for some seconds."""
        self._used += requests
        self._last_at, self._last_rate = now + seconds, requests / seconds

    def _find_share(self, now: float, live_rate: float) -> float:
        """Return our fraction of the requests of the last step, at least as much as ``Quota`` assumes.

        After a pause, the first responses report no other requests yet.
        """
        if now - self._last_at > 1 or not self._last_rate:
            return 1.0
        return max(0.02, self._last_rate / (self._last_rate + live_rate))
