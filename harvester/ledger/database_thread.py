"""A thread for the transactions of one connection, so that none of them blocks the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Engine

R = TypeVar("R")


class DatabaseThread:
    """One thread with one connection, which no other thread uses."""

    def __init__(self, name: str, engine: Engine) -> None:
        """Connect at the first use."""
        self.engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], R]) -> R:
        """Run work on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def run_now(self, work: Callable[[], R]) -> R:
        """Run work on the thread, and wait for it on another one."""
        return self._thread.submit(work).result()

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await self.run(self.engine.dispose)
        self._thread.shutdown()
