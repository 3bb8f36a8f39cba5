"""How many readings this process may have in memory, and how the room for more is shared among workspaces."""

from collections.abc import Mapping

MAX_LEASED = 8000
"""The most readings that a process has leased, and neither sealed nor released."""


class Capacity:
    """Counts the readings that are leased, and neither sealed nor released."""

    def __init__(self) -> None:
        """Count none."""
        self.count = 0

    @property
    def room(self) -> int:
        """How many more readings may be claimed."""
        return max(0, MAX_LEASED - self.count)

    def take(self, count: int) -> None:
        """Count readings that were claimed."""
        self.count += count

    def free(self, count: int) -> None:
        """Count readings that were sealed, released or lost."""
        self.count -= count


def share_room(wanted: Mapping[str, int], deadlines: Mapping[str, float], room: int) -> dict[str, int]:
    """Return how many readings each workspace may claim, at most what it wants and ``room`` in all.

    Half of the room is shared out evenly, so that every workspace makes progress; the rest goes to the nearest
    ``deadlines``. By deadline alone, a backfill with near deadlines would keep all others waiting.
    """
    if sum(wanted.values()) <= room:
        return dict(wanted)
    names = sorted(wanted, key=lambda name: deadlines[name])
    even = max(1, room // 2 // len(names))
    limits = dict.fromkeys(names, 0)
    for share in (even, room):
        for name in names:
            more = min(wanted[name] - limits[name], share, room)
            limits[name] += more
            room -= more
    return {name: limit for name, limit in limits.items() if limit}
