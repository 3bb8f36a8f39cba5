"""Whether the database server of a ledger can be used, and how long to wait before a transaction is repeated."""

import asyncio
import random
from typing import Any

import structlog

from harvester.errors import LedgerError

log = structlog.get_logger()

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.05, 5.0

QUIET_FAILURES = 3
"""After so many failures in a row a server counts as unavailable. A deadlock is over after one."""

LAST_FAILURES = 6
"""After so many failures in a row, about two seconds, a process that ends gives up."""


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


class Availability:
    """Whether the server of a ledger can be used. A file always can."""

    def __init__(self) -> None:
        """Start with a server that can be used."""
        self.problem: str | None = None
        """Why the server cannot be used now; None while it can."""
        self._most_failures = float("inf")
        self._jitter = random.Random()  # noqa: S311 - jitter, no secret

    async def wait(self, failures: int, error: LedgerError) -> None:
        """Wait before a transaction that failed so often is repeated. Raises the error after ``stop_waiting``."""
        if failures >= self._most_failures:
            raise error
        if failures >= QUIET_FAILURES:
            if self.problem is None:
                log.warning("ledger_unavailable", reason=str(error))
            self.problem = str(error)
        seconds = min(FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 20), LONGEST_WAIT_SECONDS)
        await asyncio.sleep(seconds * self._jitter.uniform(0.5, 1.0))

    def stop_waiting(self) -> None:
        """Give up from now on after some seconds of failures, because the process ends."""
        self._most_failures = LAST_FAILURES

    def record_success(self) -> None:
        """Record that a transaction has succeeded."""
        if self.problem is not None:
            self.problem = None
            log.info("ledger_recovered")
