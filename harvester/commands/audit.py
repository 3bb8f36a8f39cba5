"""Finds sends that are neither captured nor pending in the ledger. Enqueues them on request."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from harvester.ledger import Ledger
from harvester.model import SentPair
from harvester.schedule import SINGLE_READING_PLAN
from harvester.sources import Input, RejectsFile

_COVERED = ("captured", "pending")


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A send that is neither captured nor pending.

    ``state`` is unknown, expired or rejected; ``readable`` is whether Braze should still have its analytics.
    """

    send: SentPair
    state: str
    readable: bool


class Audit:
    """An audit of a list of sends. Counts all sends, those not covered, and those enqueued."""

    def __init__(self, ledger: Ledger, *, now: float, adding: bool) -> None:
        """Audit against a ledger; ``adding`` enqueues the missing sends that can still be read."""
        self._ledger = ledger
        self._now = now
        self._adding = adding
        self.sends = 0
        self.uncovered: Counter[tuple[str, bool]] = Counter()
        self.enqueued = 0

    @property
    def complete(self) -> bool:
        """Whether every send is covered, including those that were just enqueued."""
        return self.uncovered.total() == self.enqueued

    async def find_uncovered(self, pairs: Input, rejects: RejectsFile) -> AsyncIterator[Uncovered]:
        """Yield the sends of a source that are not covered, as they were before any was enqueued.

        A pair that a list names twice counts once. Raises ``UsageError`` for unusable input, ``LedgerError``.
        """
        for page in pairs.read_pages(rejects):
            if not page:
                await asyncio.sleep(0)  # other tasks run while the source continues to read
                continue
            found = await self._compare(page)
            missed = [each.send for each in found if each.readable and each.state != "rejected"]
            if self._adding and missed:
                await self._ledger.intake.enqueue(missed, trust_clock=True)
                self.enqueued += len(missed)
            for each in found:
                yield each

    async def _compare(self, page: list[SentPair]) -> list[Uncovered]:
        known = await self._ledger.reports.find([each.pair for each in page])
        states = ((each, known.get(each.pair, "unknown")) for each in page)
        found = [Uncovered(each, state, self._readable(each, state)) for each, state in states if state not in _COVERED]
        self.sends += len(page)
        self.uncovered.update((each.state, each.readable) for each in found)
        return found

    def _readable(self, send: SentPair, state: str) -> bool:
        """Return whether retention and grace have not passed; an expired pair needs a later time of send."""
        if state == "expired" and send.sent_at is None:
            return False
        return SINGLE_READING_PLAN.expires_at(self._now if send.sent_at is None else send.sent_at) > self._now
