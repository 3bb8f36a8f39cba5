"""The quota that all clients of a workspace share: fixed windows that start at full hours, as Braze's do.

- Documented: about fifty endpoints of a workspace, including live sending, share one quota. It resets at the full hour;
  it is not a sliding window.
- Recorded: every response costs one request, also a 400.
- Inferred: a 429 costs none.

The neighbour has no task. Before each request, the neighbour's requests that have become due are charged. So each grant
is the same as with a neighbour that sends continuously, and a run depends only on the clock.
"""

from dataclasses import dataclass

from harvester.simulator.neighbour import Neighbour


@dataclass(frozen=True, slots=True)
class Grant:
    """The result of one charge. ``reset_at`` is the end of the current window, in epoch seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset_at: float


class SharedQuota:
    """Allows ``limit`` requests in every window of ``window_seconds``. A refused request costs nothing.

    ``refused`` counts refused requests of our client; ``neighbour_requests`` and ``neighbour_refused`` count those of
    the neighbour. ``lowest_remaining`` is the lowest number of requests that were left.
    """

    def __init__(self, limit: int, window_seconds: float, neighbour: Neighbour | None = None) -> None:
        """Start without a window. The first charge starts one and includes the neighbour's requests until then."""
        self.limit = limit
        self.refused = 0
        self.neighbour_requests = 0
        self.neighbour_refused = 0
        self.lowest_remaining = limit
        self._window_seconds = window_seconds
        self._neighbour = neighbour
        self._window = -1
        self._seconds_into_window = 0.0
        self._used = 0

    def charge(self, now: float) -> Grant:
        """Charge one request if one is left in the window of ``now`` (epoch seconds)."""
        self.advance(now)
        charged = self._charge_up_to(1)
        self.refused += 1 - charged
        remaining = max(0, self.limit - self._used)
        return Grant(charged == 1, self.limit, remaining, (self._window + 1) * self._window_seconds)

    def advance(self, now: float) -> None:
        """End windows and charge the neighbour up to ``now``. An earlier time changes nothing.

        Windows in which our client sends no request are skipped: without it, no request of a neighbour is refused.
        """
        window, seconds_into_window = divmod(now, self._window_seconds)
        if window > self._window:
            if self._window >= 0:
                self._charge_neighbour(self._window_seconds)
            self._window, self._seconds_into_window, self._used = int(window), 0.0, 0
        if window == self._window and seconds_into_window > self._seconds_into_window:
            self._charge_neighbour(seconds_into_window)

    def _charge_neighbour(self, until: float) -> None:
        """Charge the requests of the neighbour in this window up to ``until``; those above the limit are refused."""
        if self._neighbour is not None:
            due = self._neighbour.requests_due(self.limit, self._window_seconds, self._seconds_into_window, until)
            self.neighbour_requests += due
            self.neighbour_refused += due - self._charge_up_to(due)
        self._seconds_into_window = until

    def _charge_up_to(self, requests: int) -> int:
        """Charge at most as many requests as are left. The limit may have been set below what is already used."""
        remaining = max(0, self.limit - self._used)
        charged = min(requests, remaining)
        self._used += charged
        self.lowest_remaining = min(self.lowest_remaining, remaining - charged)
        return charged
