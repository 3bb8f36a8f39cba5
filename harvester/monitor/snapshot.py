"""All that the face shows, as plain values taken at one moment: the page, the metrics and the probes read this alone.

It must never hold a secret, nor anything that changes after it was taken. What is not known keeps its default.
Whether things are well is decided here and nowhere else, from the same values that are shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harvester.formatting import ago, duration, many, shown
from harvester.health import Condition
from harvester.ledger.outlook import DayOfDeadlines, Rejection
from harvester.model import Books
from harvester.monitor.readiness import blocking_conditions

BUSY_SECONDS = 900.0
"""A workspace is busy while readings are due, and so long after a capture: the probe must not flap with each batch."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The calls that a window's budget had lost by a moment: ours, and the rest, which must have been others'."""

    at: float
    ours: int
    others: int


@dataclass(frozen=True, slots=True)
class Window:
    """The last window of a workspace's budget that an answer told of, in calls; a limit of 0 until one has."""

    limit: int = 0
    remaining: int = 0
    reserve: int = 0
    began_at: float = 0.0
    resets_at: float = 0.0
    spent: tuple[Spent, ...] = ()

    def lasts(self, now: float) -> bool:
        """Whether it is the present one. Once it has ended, nothing is known of the next until something is asked."""
        return self.limit > 0 and now < self.resets_at

    @property
    def ours(self) -> int:
        """Give what we have spent of it."""
        return self.spent[-1].ours if self.spent else 0

    @property
    def others(self) -> int:
        """Give what others have spent of it, as far as can be inferred."""
        return self.spent[-1].others if self.spent else 0


@dataclass(frozen=True, slots=True)
class WorkspaceNow:
    """One workspace. ``readings`` by state, ``calls`` by cause, ``answers`` by status; the last two since the start.

    ``last_captured_at`` is 0 where no capture is known.
    """

    name: str
    pace: float = 0.0
    in_flight: int = 0
    window: Window = Window()
    held_because: str | None = None
    held_until: float = 0.0
    halted_because: str | None = None
    halted_since: float | None = None
    waited_seconds: float = 0.0
    readings: Mapping[str, int] = field(default_factory=dict)
    last_captured_at: float = 0.0
    at_risk: int = 0
    expired: int = 0
    nearest_deadline: float | None = None
    deadlines: tuple[DayOfDeadlines, ...] = ()
    calls: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)

    @property
    def due(self) -> int:
        """Count the readings that could be captured now, those that are captured or tried again included."""
        return sum(self.readings.get(state, 0) for state in ("due", "leased", "deferred"))


@dataclass(frozen=True, slots=True)
class Trigger:
    """A queue that tells of sends. ``messages`` by outcome, since the start."""

    name: str
    kind: str
    connected: bool = True
    last_error: str | None = None
    messages: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Store:
    """Where parts go, and what waits to go there. ``batches`` by state; parts, rows and bytes since the start."""

    place: str = ""
    problem: str | None = None
    batches: Mapping[str, int] = field(default_factory=dict)
    sealed_bytes: int = 0
    parts: int = 0
    rows: int = 0
    part_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The service at one moment. ``conditions`` are the parts that do not work.

    ``unserved_at_risk`` counts the pairs at risk of each workspace that is not configured.
    This machine's clock is ahead of Braze's by ``clock_difference_seconds``; None until the time is confirmed.
    """

    taken_at: float
    started_at: float
    version: str = ""
    workspaces: tuple[WorkspaceNow, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    store: Store = Store()
    books: Books | None = None
    rejections: tuple[Rejection, ...] = ()
    conditions: tuple[Condition, ...] = ()
    unserved_at_risk: Mapping[str, int] = field(default_factory=dict)
    clock_difference_seconds: float | None = None

    def not_ready(self) -> list[str]:
        """Say in sentences why it can do no useful work now; nothing means that it is ready."""
        busy = {
            each.name: each.due > 0 or self.taken_at - each.last_captured_at < BUSY_SECONDS for each in self.workspaces
        }
        return [shown(each.sentence) for each in blocking_conditions(self.conditions, busy)]

    def alarms(self) -> list[str]:
        """Say in sentences all that someone should look at; nothing means that it is healthy."""
        reasons = [_risk(each, self.taken_at) for each in self.workspaces if each.at_risk]
        reasons += [_at_risk(name, count) for name, count in self.unserved_at_risk.items() if count]
        if conflicts := self.store.batches.get("conflict"):
            reasons.append(f"{many(conflicts, 'batch', 'batches')} cannot be stored: other bytes have a part's name")
        if self.books is not None and not self.books.balanced:
            reasons.append("The books do not balance: keep the ledger as it is and tell us")
        return [
            *reasons,
            *(f"{shown(each.sentence)}, for {duration(self.taken_at - each.since)}" for each in self.conditions),
        ]


def _at_risk(workspace: str, pairs: int) -> str:
    return f'Workspace "{workspace}": {many(pairs, "pair")} at risk of expiring unread'


def _risk(workspace: WorkspaceNow, now: float) -> str:
    sentence = _at_risk(workspace.name, workspace.at_risk)
    if workspace.nearest_deadline is not None:
        sentence += f"; the nearest deadline is {ago(workspace.nearest_deadline, now)}"
    if workspace.held_because in ("rate_limited", "throttled"):
        sentence += ", and the budget lets no call leave"
    return sentence
