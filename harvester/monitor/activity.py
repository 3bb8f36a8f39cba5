"""The activity of one workspace over the last day, in quarters of an hour."""

from collections import deque
from dataclasses import dataclass

from harvester.braze.client_counters import ClientCounters

QUARTER_SECONDS = 900.0
QUARTERS = 96
"""The quarters of an hour of one day."""


@dataclass(frozen=True, slots=True)
class Activity:
    """The requests, captures and refusals of the quarter of an hour that began at ``at``.

    A refusal is a response with a status 4xx other than 429.
    """

    at: float
    requests: int
    captures: int
    refusals: int


class ActivityHistory:
    """The last day of one workspace, as far as this process has seen it. Call ``sample`` every few seconds."""

    def __init__(self) -> None:
        """Begin without activity."""
        self._quarters: deque[Activity] = deque(maxlen=QUARTERS)
        self._counted = (0, 0, 0)

    def sample(self, counters: ClientCounters, now: float) -> None:
        """Add what was counted since the last call to the quarter of ``now``, in wall-clock seconds."""
        responses = counters.responses
        refusals = sum(n for result, n in responses.items() if result.startswith("status_4") and result != "status_429")
        counted = (sum(counters.requests.values()), responses["status_200"], refusals)
        requests, captures, refused = (new - old for new, old in zip(counted, self._counted, strict=True))
        self._counted = counted
        at = now // QUARTER_SECONDS * QUARTER_SECONDS
        if self._quarters and self._quarters[-1].at >= at:
            last = self._quarters.pop()
            requests, captures, refused = requests + last.requests, captures + last.captures, refused + last.refusals
            at = last.at
        if requests or captures or refused:
            self._quarters.append(Activity(at, requests, captures, refused))

    def list_quarters(self, now: float) -> tuple[Activity, ...]:
        """Return the quarters of the last day that had activity, the oldest first."""
        return tuple(each for each in self._quarters if each.at > now - QUARTERS * QUARTER_SECONDS)
