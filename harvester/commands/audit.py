"""Which sends that were made are not in the ledger's care. Reads the ledger; adds to it only where told to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from harvester.ledger import Ledger
from harvester.model import Enqueued
from harvester.schedule import ONLY_ONCE
from harvester.sources import Input, RejectsFile

_COVERED = ("captured", "pending")


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A send that is neither captured nor pending.

    ``standing`` is unknown, expired or rejected; ``readable`` tells whether its analytics can still be had.
    """

    send: Enqueued
    standing: str
    readable: bool


class Audit:
    """One look at the sends of a source, and what it counted: all, those not covered, those enqueued now."""

    def __init__(self, ledger: Ledger, *, now: float, adding: bool) -> None:
        """Take the ledger; ``adding`` enqueues what it misses and can still be read."""
        self._ledger = ledger
        self._now = now
        self._adding = adding
        self.sends = 0
        self.uncovered: Counter[tuple[str, bool]] = Counter()
        self.enqueued = 0

    @property
    def complete(self) -> bool:
        """Whether every send is covered, those enqueued now among them."""
        return self.uncovered.total() == self.enqueued

    async def uncovered_in(self, pairs: Input, rejects: RejectsFile) -> AsyncIterator[Uncovered]:
        """Give the sends of a source that are not covered, as they stood before any was enqueued.

        A pair that a list names twice counts once. Raises ``UsageError`` for unusable input, ``LedgerError``.
        """
        for page in pairs.pages(rejects):
            if not page:
                await asyncio.sleep(0)  # others run while the source looks for the next pair
                continue
            found = await self._compared(page)
            missed = [each.send for each in found if each.readable and each.standing != "rejected"]
            if self._adding and missed:
                await self._ledger.intake.enqueue(missed, trust_clock=True)
                self.enqueued += len(missed)
            for each in found:
                yield each

    async def _compared(self, page: list[Enqueued]) -> list[Uncovered]:
        known = await self._ledger.reports.find([each.pair for each in page])
        told = ((each, known.get(each.pair, "unknown")) for each in page)
        found = [Uncovered(each, word, self._readable(each, word)) for each, word in told if word not in _COVERED]
        self.sends += len(page)
        self.uncovered.update((each.standing, each.readable) for each in found)
        return found

    def _readable(self, send: Enqueued, standing: str) -> bool:
        """Tell whether retention and grace last still; for an expired pair, only a later time of send says so."""
        if standing == "expired" and send.sent_at is None:
            return False
        return ONLY_ONCE.expires_at(self._now if send.sent_at is None else send.sent_at) > self._now
