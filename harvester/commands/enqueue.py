"""Enqueues the pairs of an input."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from harvester.ledger import EnqueueResult, Ledger
from harvester.sources import Input, RejectsFile


async def enqueue_all(
    ledger: Ledger, pairs: Input, rejects: RejectsFile, *, forced: bool = False, once: bool = False,
    confirm: Callable[[str], Awaitable[None]] | None = None,
) -> AsyncIterator[EnqueueResult]:  # fmt: skip
    """Enqueue all pairs of an input; bad lines go to the rejects file.

    Other tasks run in between. ``confirm`` makes at most one request of a workspace to confirm the time, which decides
    whether captured pairs are read again. Without a response none is read again, and the counts contain one as
    ``in_question``.
    """
    time_requested = False
    for page in pairs.read_pages(rejects):
        if not page:
            await asyncio.sleep(0)
            yield EnqueueResult(0, 0)
            continue
        count = await ledger.intake.enqueue(page, once=once, forced=forced, trust_clock=confirm is None)
        if count.in_question is not None and confirm is not None and not time_requested:
            time_requested = True
            await confirm(count.in_question.workspace)
            if ledger.clock.confirmed:
                await ledger.intake.enqueue(page, once=once, forced=forced)
                count = EnqueueResult(count.new, count.known)
        yield count
