"""The budget that all callers of a workspace share: fixed windows, aligned to the clock as Braze's hour is.

Documented: one pool for a workspace and some fifty endpoints, live sending among them, that resets on the clock
hour and does not roll. Recorded: every answer takes one call, a 400 too. Inferred: a 429 takes none.

The neighbour has no task of its own. Whoever takes a call first lets it spend all that has fallen due since, so
every grant is the one a neighbour without pause would have left, and a run depends on the clock alone.
"""

from dataclasses import dataclass

from harvester.simulator.neighbour import Neighbour


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to one call for budget; ``reset_at`` is when the present window ends, in epoch seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset_at: float


class SharedBudget:
    """``limit`` calls in every window of ``window_seconds``. A refused call takes nothing."""

    def __init__(self, limit: int, window_seconds: float, neighbour: Neighbour | None = None) -> None:
        """Begin with a full window, of which the neighbour has spent what it spends up to that moment."""
        self.limit = limit
        self.refused = 0
        self.neighbour_calls = 0
        self.neighbour_refused = 0
        self.lowest_remaining = limit
        self._window_seconds = window_seconds
        self._neighbour = neighbour
        self._window = -1
        self._into_seconds = 0.0
        self._taken = 0

    def take(self, now: float) -> Grant:
        """Take one call, if there is one left in the window of ``now`` (epoch seconds)."""
        self.pass_time(now)
        taken = self._take_up_to(1)
        self.refused += 1 - taken
        remaining = max(0, self.limit - self._taken)
        return Grant(taken == 1, self.limit, remaining, (self._window + 1) * self._window_seconds)

    def pass_time(self, now: float) -> None:
        """Let windows end and the neighbour spend, up to ``now``. A time that was passed already changes nothing.

        Windows that begin and end unseen are left out of the books: alone, a neighbour is refused nothing.
        """
        window, into_seconds = divmod(now, self._window_seconds)
        if window > self._window:
            if self._window >= 0:
                self._spend(self._window_seconds)
            self._window, self._into_seconds, self._taken = int(window), 0.0, 0
        if window == self._window and into_seconds > self._into_seconds:
            self._spend(into_seconds)

    def _spend(self, until: float) -> None:
        """Give the neighbour what falls due in this window up to ``until``, as far as there is any left."""
        if self._neighbour is not None:
            due = self._neighbour.calls_due(self.limit, self._window_seconds, self._into_seconds, until)
            self.neighbour_calls += due
            self.neighbour_refused += due - self._take_up_to(due)
        self._into_seconds = until

    def _take_up_to(self, calls: int) -> int:
        """Take as many calls as are left; the limit may have been lowered below what is taken already."""
        remaining = max(0, self.limit - self._taken)
        taken = min(calls, remaining)
        self._taken += taken
        self.lowest_remaining = min(self.lowest_remaining, remaining - taken)
        return taken
