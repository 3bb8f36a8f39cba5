"""An event loop with virtual time: an hour of waiting takes milliseconds, and every run has the same order of events.

It is for code that waits for timers, futures and queues. It must never serve sockets: the loop does not see work
outside it, so its time would jump past the response. Work for a thread runs immediately in the loop instead.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TURN_SECONDS = 1e-6
"""How far time advances in each turn of the loop. Without it, a limiter would sleep for 0 s for ever if its next slot
differs from now by less than the precision of a float."""


class _JumpingSelector(selectors.DefaultSelector):
    """Advances the loop's time where another selector would sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Jump to the next timer. Raises ``RuntimeError`` if there is no timer and nothing is ready.

        The system is called only if there is no timer, because a call would double the cost of a turn.
        """
        if timeout is None:
            ready = super().select(0)
            if not ready:
                raise RuntimeError("nothing is ready and no timer is set; the loop would wait for ever")
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

    # Typeshed's signature needs a TypeVarTuple, which adds nothing here.
    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run the work of a thread immediately, in no virtual time. As on a thread, it sees no running loop."""
        del executor
        done: asyncio.Future[T] = self.create_future()
        asyncio._set_running_loop(None)  # noqa: SLF001 - asyncio documents it for authors of event loops
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the await of the result raises it
            done.set_exception(error)
        finally:
            asyncio._set_running_loop(self)  # noqa: SLF001 - as above
        return done


class VirtualClock:
    """A wall clock and a monotonic clock, advanced by the running ``VirtualLoop``."""

    def __init__(self, starts_at: float = 1_767_225_600.0) -> None:
        """Set the wall clock to ``starts_at`` (epoch seconds; by default 2026-01-01) at the loop's second 0."""
        self.starts_at = starts_at
        self._loop: asyncio.AbstractEventLoop | None = None

    def monotonic(self) -> float:
        """Return the seconds of the event loop that ran at the first call; work for a thread has no running loop."""
        self._loop = self._loop or asyncio.get_running_loop()
        return self._loop.time()

    def wall(self) -> float:
        """Return UTC seconds since the epoch."""
        return self.starts_at + self.monotonic()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new ``VirtualLoop``, and return its result.

    Raises ``RuntimeError`` if all tasks wait and nothing can wake them, where another loop would hang.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
