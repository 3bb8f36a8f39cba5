"""For how long a run waits for an endpoint that does not work before it leaves pending pairs to the next run."""

from harvester.braze.gate import Hold, HoldCause, count_overload_holds
from harvester.braze.pacer import Pacer
from harvester.schedule import count_deferrals

MAX_UNANSWERED_PROBES = 2
"""A run gives up after this many failed probes if no request ever got a response: the endpoint may not exist."""


class Patience:
    """The patience of a process. A service has no limit: it waits for every reading that is planned."""

    def __init__(self, seconds: float | None) -> None:
        """Give up once nothing has succeeded for ``seconds``; None means never."""
        self.unlimited = seconds is None
        self.max_deferrals = None if seconds is None else count_deferrals(seconds)
        self._holds = 0 if seconds is None else count_overload_holds(seconds)

    def is_over(self, hold: Hold | None, pacer: Pacer) -> bool:
        """Return whether a hold has lasted for too long."""
        if self.unlimited or hold is None:
            return False
        if hold.cause is HoldCause.HALTED:
            return True
        return hold.cause is HoldCause.OVERLOADED and pacer.state().holds_in_a_row > self._allowed_holds(pacer)

    def seconds_left(self, pacer: Pacer) -> float | None:
        """Return the most seconds that a run still tries while no request succeeds; None if it never gives up."""
        return None if self.unlimited else pacer.overload_seconds(self._allowed_holds(pacer))

    def _allowed_holds(self, pacer: Pacer) -> int:
        """Return how many holds in a row to wait for."""
        return self._holds if pacer.state().answered else min(self._holds, MAX_UNANSWERED_PROBES)
