"""Calls ``stop()`` on SIGINT and SIGTERM, and ``reload()`` on SIGHUP. No other module handles signals."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

import structlog

GRACE_SECONDS = 25.0
"""The time for a graceful end, shorter than the 30 seconds after which orchestrators kill."""

log = structlog.get_logger()


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None], reload: Callable[[], None] | None = None) -> Iterator[None]:
    """Stop on SIGINT and SIGTERM. A second signal, or the end of the grace period, cancels, which is safe.

    Without ``reload``, SIGHUP ends the process, as usual.
    """
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

    handlers = {signal.SIGINT: handle, signal.SIGTERM: handle}
    if reload is not None:
        handlers[signal.SIGHUP] = reload
    for each, handler in handlers.items():
        loop.add_signal_handler(each, handler)
    try:
        yield
    finally:
        for each in handlers:
            loop.remove_signal_handler(each)
        for timer in timers:
            timer.cancel()
