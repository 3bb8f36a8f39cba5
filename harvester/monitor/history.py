"""The history of a rate limit window: who sent its requests, as a short series of samples.

All requests of the window that this process did not send count as requests of others, including those before a restart.
"""

from harvester.braze.pace_state import PaceState
from harvester.braze.quota import LONGEST_WINDOW_SECONDS
from harvester.monitor.snapshot import QuotaSample, Window

MAX_SAMPLES = 60
_TOLERANCE_SECONDS = 2.5
"""How much two measurements of one reset may differ: ``Date`` has whole seconds, and responses are delayed."""


class QuotaHistory:
    """The current window of one workspace. Call ``sample`` every few seconds."""

    def __init__(self) -> None:
        """No window is known yet."""
        self.window = Window()
        self._requests_before = 0
        self._requests_sampled = 0
        self._sample_seconds = 0.0

    def sample(self, state: PaceState, now: float) -> None:
        """Add the state of the pacer at ``now``, in wall-clock seconds."""
        if state.requests < self._requests_sampled:  # a new pacer, after its limits changed
            self._requests_before -= self._requests_sampled
        if state.limit and state.seconds_to_reset > 0:
            resets_at = now + state.seconds_to_reset
            if not self.window.limit or resets_at > self.window.resets_at + _TOLERANCE_SECONDS:
                self._start_window(resets_at)
            self._add_sample(state, now)
        self._requests_sampled = state.requests

    def _start_window(self, resets_at: float) -> None:
        before = self.window.resets_at
        length = min(resets_at - before, LONGEST_WINDOW_SECONDS) if before else LONGEST_WINDOW_SECONDS
        self.window = Window(began_at=resets_at - length, resets_at=resets_at)
        self._requests_before = self._requests_sampled
        self._sample_seconds = length / MAX_SAMPLES

    def _add_sample(self, state: PaceState, now: float) -> None:
        used = state.limit - state.remaining
        ours = min(state.requests - self._requests_before, used)
        series = self.window.spent
        if len(series) > 1 and series[-1].at - series[-2].at < self._sample_seconds:
            series = series[:-1]  # replace the last sample until it is far enough from the one before
        self.window = Window(
            limit=state.limit,
            remaining=state.remaining,
            reserve=state.reserve_requests,
            began_at=self.window.began_at,
            resets_at=self.window.resets_at,
            spent=(*series, QuotaSample(now, ours, used - ours)),
        )
