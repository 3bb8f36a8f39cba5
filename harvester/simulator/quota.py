"""The quota that all clients of a workspace share: fixed windows, aligned to the clock as Braze's hour is.

Documented: one pool for a workspace and some fifty endpoints, live sending among them, that resets on the clock
hour and does not roll. Recorded: every response costs one request, a 400 too. Inferred: a 429 takes none.

The neighbour has no task of its own. Before each request, its requests that have become due are charged. Each grant
therefore equals the one that a continuous neighbour would have left, and a run depends on the clock alone.
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
    """``limit`` requests in every window of ``window_seconds``. A refused request costs nothing."""

    def __init__(self, limit: int, window_seconds: float, neighbour: Neighbour | None = None) -> None:
        """Begin with a full window, less what the neighbour has used by then."""
        self.limit = limit
        self.refused = 0
        self.neighbour_requests = 0
        self.neighbour_refused = 0
        self.lowest_remaining = limit
        self._window_seconds = window_seconds
        self._neighbour = neighbour
        self._window = -1
        self._into_seconds = 0.0
        self._taken = 0

    def take(self, now: float) -> Grant:
        """Charge one request, if one is left in the window of ``now`` (epoch seconds)."""
        self.pass_time(now)
        taken = self._take_up_to(1)
        self.refused += 1 - taken
        remaining = max(0, self.limit - self._taken)
        return Grant(taken == 1, self.limit, remaining, (self._window + 1) * self._window_seconds)

    def pass_time(self, now: float) -> None:
        """End windows and charge the neighbour, up to ``now``. An earlier time changes nothing.

        Windows without any request do not count: alone, a neighbour is never refused.
        """
        window, into_seconds = divmod(now, self._window_seconds)
        if window > self._window:
            if self._window >= 0:
                self._charge_neighbour(self._window_seconds)
            self._window, self._into_seconds, self._taken = int(window), 0.0, 0
        if window == self._window and into_seconds > self._into_seconds:
            self._charge_neighbour(into_seconds)

    def _charge_neighbour(self, until: float) -> None:
        """Charge the neighbour's requests of this window up to ``until``, as far as quota is left."""
        if self._neighbour is not None:
            due = self._neighbour.requests_due(self.limit, self._window_seconds, self._into_seconds, until)
            self.neighbour_requests += due
            self.neighbour_refused += due - self._take_up_to(due)
        self._into_seconds = until

    def _take_up_to(self, requests: int) -> int:
        """Charge as many requests as are left. The limit may have dropped below what is already used."""
        remaining = max(0, self.limit - self._taken)
        taken = min(requests, remaining)
        self._taken += taken
        self.lowest_remaining = min(self.lowest_remaining, remaining - taken)
        return taken
