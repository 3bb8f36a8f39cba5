"""The books: how many pairs of a ledger are captured, rejected, expired and pending. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harvester.model import Verdict


@dataclass(frozen=True, slots=True)
class Books:
    """A ledger's totals of pairs. ``accepted`` is counted separately from the states that it must equal.

    Of the pending pairs ``never_read`` were never captured. The others wait for their next reading; the first of these
    is due at ``next_reading_at``.
    """

    accepted: int
    captured: Mapping[Verdict, int]
    rejected: Mapping[str, int]
    expired: int
    pending: int
    never_read: int = 0
    next_reading_at: float | None = None

    @classmethod
    def sum(cls, each: Iterable["Books"]) -> "Books":
        """Add up the books of several workspaces."""
        balances = list(each)
        return cls(
            accepted=sum(one.accepted for one in balances),
            captured=sum((Counter(one.captured) for one in balances), Counter[Verdict]()),
            rejected=sum((Counter(one.rejected) for one in balances), Counter[str]()),
            expired=sum(one.expired for one in balances),
            pending=sum(one.pending for one in balances),
            never_read=sum(one.never_read for one in balances),
            next_reading_at=min(
                (one.next_reading_at for one in balances if one.next_reading_at is not None), default=None
            ),
        )

    @property
    def balanced(self) -> bool:
        """Whether accepted = captured + rejected + expired + pending."""
        ended = sum(self.captured.values()) + sum(self.rejected.values()) + self.expired
        return self.accepted == ended + self.pending

    def as_dict(self, format_time: Callable[[float | None], str | None]) -> dict[str, Any]:
        """Return the books for JSON. ``format_time`` formats ``next_reading_at``, which may be None."""
        return {
            "accepted": self.accepted,
            "captured": {verdict.value: count for verdict, count in self.captured.items()},
            "rejected": dict(self.rejected),
            "expired": self.expired,
            "pending": self.pending,
            "never_read": self.never_read,
            "next_reading_at": format_time(self.next_reading_at),
            "balanced": self.balanced,
        }
