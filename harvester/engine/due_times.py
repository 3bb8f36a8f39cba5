"""When the next reading of each workspace falls due. One query reads many workspaces, so an idle one costs nothing."""

import math
from collections.abc import Collection, Iterable

from harvester.ledger import Ledger


class DueTimes:
    """The due times that were last read from the ledger, and when to read them again."""

    def __init__(self, ledger: Ledger, names: Iterable[str]) -> None:
        """Begin without any, so that those of ``names`` are read at once."""
        self._ledger = ledger
        self._clock = ledger.clock
        self._due: dict[str, float] = {}
        """By Braze's clock."""
        self._read_at: dict[str, float] = dict.fromkeys(names, -math.inf)
        """When to read those that may have changed, by the monotonic clock."""
        self._read_all_at = -math.inf

    def expect_change(self, name: str, *, seconds: float = 0.0) -> None:
        """Read the due time of a workspace within these seconds, because it may change until then."""
        at = self._clock.monotonic() + seconds
        self._read_at[name] = min(at, self._read_at.get(name, math.inf))

    def expect_changes(self) -> None:
        """Read all due times at once."""
        self._read_all_at = -math.inf

    async def read(self, workspaces: Collection[str], *, all_seconds: float) -> bool:
        """Read the due times that may have changed, and after ``all_seconds`` those of all workspaces.

        Returns whether all were read. Raises ``LedgerError``.
        """
        now = self._clock.monotonic()
        all_ = now >= self._read_all_at
        if all_:
            self._read_all_at = now + all_seconds
        names = list(workspaces) if all_ else [name for name, at in self._read_at.items() if at <= now]
        for name in names:
            self._read_at.pop(name, None)
        if names:
            found = await self._ledger.batches.list_due(names)
            for name in names:
                self._due.pop(name, None)
            self._due |= found
        return all_

    def list_due(self) -> list[str]:
        """Return the workspaces with a due reading."""
        wall = self._clock.wall()
        return [name for name, at in self._due.items() if at <= wall]

    def list_planned(self) -> Collection[str]:
        """Return the workspaces that have a reading, due or not."""
        return self._due.keys()

    def take_due(self) -> list[str]:
        """Return the workspaces with a due reading, each only once until it is read again."""
        names = self.list_due()
        for name in names:
            del self._due[name]
        return names

    def seconds_to_next(self) -> float:
        """Return the time until the next due time, or until the next read."""
        now = self._clock.monotonic()
        next_read = min(self._read_at.values(), default=math.inf)
        due = min(self._due.values(), default=math.inf) - self._clock.wall()
        return max(0.0, min(self._read_all_at - now, next_read - now, due))
