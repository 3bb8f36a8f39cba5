"""How a window's budget was spent, as far as one can tell from the pacer: a short series, bounded and without a clock.

What the window has lost and we did not spend was spent by others. Calls of an earlier life of this process count as
others', for nothing remembers them.
"""

from harvester.braze.budget import LONGEST_WINDOW_SECONDS
from harvester.braze.pacer import PaceState
from harvester.monitor.snapshot import Spent, Window

SERIES = 60
_TOLERANCE_SECONDS = 2.5
"""How far two looks at one reset may lie apart: ``Date`` has whole seconds, and answers take their time."""


class BudgetHistory:
    """The present window of one workspace. ``note`` what the pacer says every few seconds; ``window`` gives it."""

    def __init__(self) -> None:
        """Know of no window yet."""
        self.window = Window()
        self._calls_before = 0
        self._calls_seen = 0
        self._every_seconds = 0.0

    def note(self, state: PaceState, now: float) -> None:
        """Take note of what the pacer says at ``now``, in wall-clock seconds."""
        if state.limit and state.seconds_to_reset > 0:
            resets_at = now + state.seconds_to_reset
            if not self.window.limit or resets_at > self.window.resets_at + _TOLERANCE_SECONDS:
                self._begin(resets_at)
            self._go_on(state, now)
        self._calls_seen = state.calls

    def _begin(self, resets_at: float) -> None:
        before = self.window.resets_at
        length = min(resets_at - before, LONGEST_WINDOW_SECONDS) if before else LONGEST_WINDOW_SECONDS
        self.window = Window(began_at=resets_at - length, resets_at=resets_at)
        self._calls_before = self._calls_seen
        self._every_seconds = length / SERIES

    def _go_on(self, state: PaceState, now: float) -> None:
        lost = state.limit - state.remaining
        ours = min(state.calls - self._calls_before, lost)
        series = self.window.spent
        if len(series) > 1 and series[-1].at - series[-2].at < self._every_seconds:
            series = series[:-1]  # the last point is the present one, until the next is far enough from it
        self.window = Window(
            limit=state.limit, remaining=state.remaining, reserve=state.reserve_calls,
            began_at=self.window.began_at, resets_at=self.window.resets_at,
            spent=(*series, Spent(now, ours, lost - ours)),
        )  # fmt: skip
