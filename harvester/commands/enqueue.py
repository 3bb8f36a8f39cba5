"""Enqueues the pairs of an input, which another thread reads."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from harvester.ledger import EnqueueResult, Ledger
from harvester.model import SentPair
from harvester.sources import EnqueueNew, Input, RejectsFile

P = ParamSpec("P")
T = TypeVar("T")


async def enqueue_all(
    ledger: Ledger, pairs: Input, rejects: RejectsFile, *, forced: bool = False, once: bool = False,
    confirm: Callable[[str], Awaitable[None]] | None = None, enqueue_new: EnqueueNew | None = None,
) -> AsyncIterator[tuple[list[SentPair], EnqueueResult]]:  # fmt: skip
    """Enqueue all pairs of an input; bad lines go to the rejects file. Yields each page and its counts.

    Other tasks run between the pages. ``confirm`` makes at most one request of a workspace to confirm the time, which
    decides whether captured pairs are read again. Without a response none is read again, and the counts contain one as
    ``in_question``. ``enqueue_new`` enqueues new pairs of a long list while it is read; it is called on another thread.
    """
    time_requested = False
    async with contextlib.aclosing(_read_pages(pairs.read_pages(rejects, enqueue_new))) as pages:
        async for page in pages:
            if not page:
                yield page, EnqueueResult(0, 0)
                continue
            count = await ledger.intake.enqueue(page, once=once, forced=forced, trust_clock=confirm is None)
            if count.in_question is not None and confirm is not None and not time_requested:
                time_requested = True
                await confirm(count.in_question.workspace)
                if ledger.clock.confirmed:
                    await ledger.intake.enqueue(page, once=once, forced=forced)
                    count = EnqueueResult(count.new, count.known)
            yield page, count


async def _read_pages(pages: Generator[list[SentPair], None, None]) -> AsyncGenerator[list[SentPair], None]:
    """Read pages on another thread, and close their files at the end."""
    loop, threads, ended = asyncio.get_running_loop(), _DaemonThreads(), threading.Event()

    def read_page() -> list[SentPair] | None:
        page = next(pages, None)
        if ended.is_set():
            pages.close()
        return page

    try:
        while (page := await loop.run_in_executor(threads, read_page)) is not None:
            yield page
    finally:
        ended.set()
        with contextlib.suppress(ValueError):  # a thread is still reading a page, and closes them afterwards
            pages.close()


class _DaemonThreads(Executor):
    """Runs each call on a thread of its own. The process may end while a thread still waits for a silent pipe."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a thread, and return the future of its result."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)

        threading.Thread(target=run, name="lists", daemon=True).start()
        return future
