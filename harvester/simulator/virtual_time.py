"""An event loop whose time jumps: an hour of waiting for budget passes in milliseconds, and always the same way.

It is for code that waits on timers, futures and queues. It must never serve sockets: what is under way outside the
loop looks like idleness to it, and time would jump past the answer. What is meant for a thread is done at once instead.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TURN_SECONDS = 1e-6
"""How far time moves by itself in each turn of the loop. Were it still, a limiter whose next slot is off by less
than a float can tell would sleep for 0 s for ever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Lets the loop's time pass where a real selector would sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Give what is ready; where nothing is, jump to the next timer. Raises RuntimeError where there is none."""
        ready = super().select(0)
        if timeout is None and not ready:
            raise RuntimeError("nothing is ready and no timer is set: this would wait for ever")
        self.now += TURN_SECONDS
        if not ready and timeout is not None:
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that begins at second 0 and never waits."""

    def __init__(self) -> None:
        """Begin at second 0."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now

    # Typeshed's signature needs a TypeVarTuple, which would say no more here.
    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Do at once, in no time, what was meant for a thread. As on a thread, no loop is running then."""
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
    """Both times of the harvest, moved by the running ``VirtualLoop``."""

    def __init__(self, starts_at: float = 1_767_225_600.0) -> None:
        """Let the wall clock stand at ``starts_at`` (epoch seconds; by default 2026-01-01) at the loop's second 0."""
        self.starts_at = starts_at
        self._loop: asyncio.AbstractEventLoop | None = None

    def monotonic(self) -> float:
        """Seconds of the event loop that runs, or that ran here first where what is meant for a thread is done."""
        self._loop = self._loop or asyncio.get_running_loop()
        return self._loop.time()

    def wall(self) -> float:
        """UTC seconds since the epoch."""
        return self.starts_at + self.monotonic()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own, and give its result.

    Raises RuntimeError when everything waits and nothing could ever wake it, instead of hanging.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
