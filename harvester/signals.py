"""Calls ``stop()`` on SIGINT and SIGTERM. No other module handles signals."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence

import structlog

GRACE_SECONDS = 25.0
"""The time for a graceful end, shorter than the 30 seconds after which orchestrators kill."""

log = structlog.get_logger()


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Stop on SIGINT and SIGTERM. A second signal, or the end of the grace period, cancels, which is safe."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    timers: list[asyncio.TimerHandle] = []

    def handle() -> None:
        if timers:
            task.cancel()
            return
        log.warning(
            "stop_requested",
            hint="requests in flight finish first, within seconds; a second signal ends the process at once",
        )
        timers.append(loop.call_later(GRACE_SECONDS, task.cancel))
        stop()

    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    for each in signals:
        loop.add_signal_handler(each, handle)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
        for timer in timers:
            timer.cancel()
