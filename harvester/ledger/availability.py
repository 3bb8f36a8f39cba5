"""Whether the database server of a ledger can be used, and how long to wait before a transaction is repeated."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any, NamedTuple, TypeVar

import structlog

from harvester.clock import Clock
from harvester.errors import LedgerError

T = TypeVar("T")

log = structlog.get_logger()

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.05, 5.0

FAILURES_TO_OUTAGE = 3
"""The number of consecutive failures after which a server counts as unavailable. A deadlock causes only one."""

FAILURES_TO_GIVE_UP = 6
"""The number of consecutive failures, about two seconds, after which a command, or a process that stops, gives up."""

STOPPING_SECONDS = 5.0
"""How long a stopping process repeats transactions: each failure may take seconds, and many callers may wait."""


class TransactionFailed(Exception):  # noqa: N818 - it is repeated
    """A transaction failed with an ``error``, and may succeed later."""

    def __init__(self, error: LedgerError) -> None:
        """Keep the error."""
        super().__init__()
        self.error = error


class CommitUnknown(Exception):  # noqa: N818 - it is resolved
    """The connection was lost while a transaction was committed; ``result`` is valid if it was."""

    def __init__(self, transaction_id: str, result: Any) -> None:
        """Keep the id of the transaction, and what its function returned."""
        super().__init__(transaction_id)
        self.transaction_id = transaction_id
        self.result = result


class LedgerOutage(NamedTuple):
    """Why the server of a ledger cannot be used, and since when in monotonic seconds."""

    since: float
    reason: str


class Availability:
    """Whether the server of a ledger can be used. A file always can."""

    def __init__(self, clock: Clock) -> None:
        """Start with a server that can be used."""
        self.outage: LedgerOutage | None = None
        """Why the server cannot be used now; None while it can."""
        self.logs_changes = True
        """Whether changes are logged here; an engine logs them as conditions."""
        self._clock = clock
        self._unavailable = asyncio.Event()
        self.given_up: LedgerError | None = None
        """The error with which a process that is stopping gave up. It tries nothing from then on."""
        self._most_failures: float = FAILURES_TO_GIVE_UP
        self._stopped_at: float | None = None
        self._failing_since: float | None = None
        self._jitter = random.Random()  # noqa: S311 - jitter, no secret

    async def wait(self, failures: int, error: LedgerError) -> None:
        """Wait before the transaction is repeated. Raises ``error`` instead, once there were too many failures."""
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        began = None if self._stopped_at is None else max(self._stopped_at, self._failing_since)
        if failures >= self._most_failures or (began is not None and now - began >= STOPPING_SECONDS):
            self.given_up = None if began is None else error
            raise error
        if failures >= FAILURES_TO_OUTAGE:
            if self.outage is None and self.logs_changes:
                log.warning("ledger_unavailable", reason=str(error))
            self.outage = LedgerOutage(self.outage.since if self.outage else now, str(error))
            self._unavailable.set()
        seconds = min(FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 20), LONGEST_WAIT_SECONDS)
        await asyncio.sleep(seconds * self._jitter.uniform(0.5, 1.0))

    def keep_trying(self) -> None:
        """From now on, wait as long as the server is unavailable."""
        self._most_failures = float("inf")

    def stop_waiting(self) -> None:
        """Give up after ``FAILURES_TO_GIVE_UP`` or ``STOPPING_SECONDS`` from now on: the process is stopping."""
        self._most_failures, self._stopped_at = FAILURES_TO_GIVE_UP, self._clock.monotonic()

    def record_success(self) -> None:
        """Record that a transaction has succeeded."""
        self._failing_since = None
        if self.outage is not None:
            self.outage = None
            self._unavailable.clear()
            if self.logs_changes:
                log.info("ledger_recovered")

    async def cancel_if_unavailable(self, work: Awaitable[T]) -> T:
        """Return the result of work. Cancel it, and raise ``LedgerError``, as soon as the server is unavailable."""
        tasks = asyncio.ensure_future(work), asyncio.ensure_future(self._unavailable.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self.outage is not None and not tasks[0].done():
                raise LedgerError(self.outage.reason)
            return await tasks[0]
        finally:
            for each in tasks:
                each.cancel()
