"""Time as an argument: nothing else in the house reads a clock, so tests own time.

``monotonic`` is the event loop's own time, so that a virtual loop moves timers and intervals together.
``wall`` is UTC seconds since the epoch; it may jump, and is never compared with the API's clock.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Both times that the harvest needs."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, for intervals."""
        ...

    def wall(self) -> float:
        """UTC seconds since the epoch, for what is written down."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds of the running event loop."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """UTC seconds since the epoch."""
        return time.time()


async def happens(event: asyncio.Event, *, within: float | None) -> bool:
    """Wait for an event, at most so many seconds or, without, for as long as it takes; tell whether it came."""
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
