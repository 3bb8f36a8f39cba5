"""What a ledger must hold after any events, as plain Python: the model of the state machine's test."""

import random
from collections import Counter
from dataclasses import dataclass, field

from harvester.ledger import Ledger
from harvester.ledger.known_pairs import SAME_SEND_SECONDS
from harvester.model import GRACE_SECONDS, Captured, Deferred, Outcome, Reading, Rejected, Released, Verdict
from harvester.schedule import FINAL, ONCE, SINGLE_READING_PLAN, ReadingPlan, deferral_seconds

NOW = 1_767_225_600.0
AGES = (1.0, 3.0, 8.0, 13.0)
PLANS = {"once": SINGLE_READING_PLAN, "eu": ReadingPlan(AGES)}
OUTCOMES: dict[str, Outcome] = {
    "captured": Captured(Verdict.ACTIVITY, NOW, b"", 1),
    "rejected": Rejected("status_400", "no"),
    "deferred": Deferred("timeout"),
    "released": Released(),
}


class NoJitter(random.Random):
    """Jitter that always uses the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper bound."""
        return b


@dataclass
class ExpectedPair:
    """The state that one pair must have."""

    sent_at: float | None
    first_seen_at: float
    reading: str
    due_at: float
    expires_at: float
    state: str = "open"
    round: int = 0
    captures: int = 0
    deferrals: int = 0
    ending_at: float | None = None
    yields: bool = False
    ended: Counter = field(default_factory=Counter)

    @property
    def since(self) -> float:
        """The start of its time."""
        return self.first_seen_at if self.sent_at is None else self.sent_at

    def enqueue_again(self, sent_at: float | None, plan: ReadingPlan, now: float) -> None:
        """Apply another event of the same pair."""
        expires_at, first = plan.expires_at(now if sent_at is None else sent_at), plan.first(sent_at, now)
        settled = self.state not in ("open", "leased")
        reopened = settled and sent_at is None and self.expires_at < now
        expires_at = self.expires_at if sent_at is None and not reopened else expires_at
        planned = self.reading == ONCE != first.name and expires_at > now
        later = sent_at is not None and sent_at >= self.since + SAME_SEND_SECONDS
        if later or reopened or planned:
            self.round, self.captures = self.round + 1, 0
            self.first_seen_at = now if later or reopened else self.first_seen_at
        elif self.takes_earlier_time(sent_at, expires_at, now):
            self.sent_at, self.expires_at = sent_at, expires_at
            return
        elif settled or self.sent_at is not None or sent_at is None:
            return
        elif self.captures:
            self.due_at += sent_at - self.first_seen_at
            self.sent_at, self.expires_at = sent_at, expires_at
            return
        self.sent_at = None if reopened else self.sent_at if sent_at is None else sent_at
        self.state = "open" if settled else self.state
        self.reading, self.due_at, self.expires_at, self.deferrals = first.name, first.due_at, expires_at, 0
        self.ending_at, self.yields = None, False

    def takes_earlier_time(self, sent_at: float | None, expires_at: float, now: float) -> bool:
        """Return whether an earlier time of its send moves its deadline: it is open, and read once."""
        earlier = sent_at is not None and self.sent_at is not None and sent_at < self.sent_at
        open_once = self.state in ("open", "leased") and self.reading == ONCE and self.round == 0
        return earlier and open_once and expires_at - GRACE_SECONDS > now

    def current_reading(self, plan: ReadingPlan, now: float) -> str:
        """Return the name of the reading that is current now."""
        due = [name for name, age in plan.readings if self.since + age <= now]
        return due[-1] if due and self.reading != ONCE else self.reading

    def expire(self, now: float) -> None:
        """End a due reading whose time is over, if it was attempted or came too late."""
        if self.is_due(now) and not self.is_in_time(now):
            self.state = "expired"
            self.ended["expired"] += 1

    def is_due(self, now: float) -> bool:
        """Return whether its reading is due and not leased."""
        return self.state == "open" and self.due_at <= now

    def is_in_time(self, now: float) -> bool:
        """Return whether it may be requested: an enqueued pair gets one attempt even after its time."""
        tried = self.captures or self.deferrals or self.first_seen_at >= self.expires_at
        return self.expires_at > now or not tried

    def apply_outcome(self, kind: str, reading: Reading, plan: ReadingPlan, now: float) -> None:
        """Apply the outcome of a reading."""
        self.state = "open"
        self.ending_at = None
        if kind in ("captured", "rejected"):
            self.ended[kind] += 1
            self.deferrals, self.yields = 0, False
        if reading.round != self.round:
            self.deferrals = 0
        elif kind == "deferred":
            self.due_at, self.deferrals = now + deferral_seconds(self.deferrals, NoJitter()), self.deferrals + 1
            self.reading, self.ending_at = reading.name, reading.ending_at
        elif kind == "rejected":
            self.state = kind
        elif kind == "captured":
            self.captures += 1
            following = plan.after(reading.name, reading.since, reading.ending_at)
            if following is None:
                self.state = kind
                if self.sent_at is None and self.expires_at < now:  # a clock that was behind may have seen it first
                    self.expires_at += now - self.first_seen_at
                    self.first_seen_at = now
            else:
                self.reading, self.due_at = following.name, following.due_at + self.since - reading.since
                self.yields = following.name != FINAL


@dataclass
class Owner:
    """A process: its open ledger, and the readings that it has claimed."""

    ledger: Ledger
    alive_until: float = 0.0
    epoch: int | None = None
    """Its epoch by the model; None before it has registered."""
    over: bool = False
    """Whether another owner has ended its epoch."""
