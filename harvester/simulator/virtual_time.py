"""An event loop with virtual time: an hour of waiting passes in milliseconds, and always in the same way.

It is for code that waits on timers, futures and queues. It must never serve sockets: work outside the loop looks idle
to it, and time would jump past the response. Work for a thread runs at once in the loop instead.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TURN_SECONDS = 1e-6
"""How far time moves by itself in each turn of the loop. Otherwise a limiter whose next slot differs by less than a
float's precision would sleep for 0 s for ever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Advances the loop's time where a real selector would sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Jump to the next timer. Raises RuntimeError if there is none and nothing is ready.

        The system is asked only where a real loop might wait for ever: a call to it in each turn would take as long as
        the turn.
        """
        if timeout is None:
            ready = super().select(0)
            if not ready:
                raise RuntimeError("nothing is ready and no timer is set: this would wait for ever")
            self.now += TURN_SECONDS
            return ready
        self.now += TURN_SECONDS + timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that begins at second 0 and never waits."""

    def __init__(self) -> None:
        """Begin at second 0."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return virtual seconds since the loop was created."""
        return self._jumping.now

    # Typeshed's signature needs a TypeVarTuple, which would say no more here.
    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run a thread's work at once, in no time. As on a thread, no loop is running meanwhile."""
        del executor
        done: asyncio.Future[T] = self.create_future()
        asyncio._set_running_loop(None)  # noqa: SLF001 - documented there as for those who make event loops
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            done.set_exception(error)
        finally:
            asyncio._set_running_loop(self)  # noqa: SLF001 - likewise
        return done


class VirtualClock:
    """A wall clock and a monotonic clock, advanced by the running ``VirtualLoop``."""

    def __init__(self, starts_at: float = 1_767_225_600.0) -> None:
        """Set the wall clock to ``starts_at`` (epoch seconds; by default 2026-01-01) at the loop's second 0."""
        self.starts_at = starts_at
        self._loop: asyncio.AbstractEventLoop | None = None

    def monotonic(self) -> float:
        """Return seconds of the running event loop, or of the first one if none runs (work for a thread)."""
        self._loop = self._loop or asyncio.get_running_loop()
        return self._loop.time()

    def wall(self) -> float:
        """UTC seconds since the epoch."""
        return self.starts_at + self.monotonic()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, and return its result.

    Raises RuntimeError instead of hanging when everything waits and nothing can wake it.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
