"""From signals to ``stop()``: the only place that listens to them, and that gives the old handlers back."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence

import structlog

GRACE_SECONDS = 25.0
"""For how long a harvest may end: an orchestrator that kills after 30 seconds finds nothing to kill."""

log = structlog.get_logger()


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop; the second one, or the end of the grace, cancels: the ledger makes that safe."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    timers: list[asyncio.TimerHandle] = []

    def told() -> None:
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
        loop.add_signal_handler(each, told)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
        for timer in timers:
            timer.cancel()
