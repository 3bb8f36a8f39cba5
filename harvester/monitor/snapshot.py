"""The state of the service at one moment, as plain values. The page, the metrics and the probes show only this.

A snapshot contains no secret, and never changes. Unknown values keep their defaults. The snapshot also decides whether
the service is healthy and ready, from the values that are shown.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from harvester.books import Books
from harvester.condition import Condition, get_hold_severity
from harvester.formatting import ago, duration, quantity, safe_text
from harvester.histogram import HistogramState
from harvester.ledger import DayOfDeadlines, Rejection
from harvester.monitor.activity import Activity
from harvester.monitor.readiness import blocking_conditions

BUSY_SECONDS = 900.0
"""A workspace is busy while readings are due, and for this time after a capture, so that readiness does not flap."""

_NO_VALUES = HistogramState()


@dataclass(frozen=True, slots=True)
class QuotaSample:
    """The requests of a window until ``at``: those of this process, and those of others."""

    at: float
    ours: int
    others: int


@dataclass(frozen=True, slots=True)
class Window:
    """The latest rate limit window of a workspace, in requests. The limit is 0 until a response has described one."""

    limit: int = 0
    remaining: int = 0
    reserve: int = 0
    began_at: float = 0.0
    resets_at: float = 0.0
    spent: tuple[QuotaSample, ...] = ()

    def is_current(self, now: float) -> bool:
        """Return whether the window has not ended. The next one is unknown until a response describes it."""
        return self.limit > 0 and now < self.resets_at

    @property
    def ours(self) -> int:
        """Return the requests of this process."""
        return self.spent[-1].ours if self.spent else 0

    @property
    def others(self) -> int:
        """Return the requests of others, as inferred."""
        return self.spent[-1].others if self.spent else 0


@dataclass(frozen=True, slots=True)
class WorkspaceState:
    """One workspace: ``readings`` by state, and since the start ``requests`` by cause and ``responses`` by result.

    ``replica`` is the name of the replica that serves it instead of this process, which therefore knows no pace and no
    window. ``last_captured_at`` is 0 if no capture is known. ``next_due_at`` is in the past if a reading is due now. It
    is None if none is planned.
    """

    name: str
    replica: str | None = None
    pace: float = 0.0
    in_flight: int = 0
    window: Window = Window()
    hold_cause: str | None = None
    hold_until: float = 0.0
    halt_reason: str | None = None
    halted_since: float | None = None
    waited_seconds: float = 0.0
    readings: Mapping[str, int] = field(default_factory=dict)
    last_captured_at: float = 0.0
    at_risk: int = 0
    expired: int = 0
    next_due_at: float | None = None
    nearest_deadline: float | None = None
    deadlines: tuple[DayOfDeadlines, ...] = ()
    activity: tuple[Activity, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    responses: Mapping[str, int] = field(default_factory=dict)

    @property
    def due(self) -> int:
        """Return the number of readings that are due, including those in progress and those to be tried again."""
        return sum(self.readings.get(state, 0) for state in ("due", "leased", "deferred"))


@dataclass(frozen=True, slots=True)
class TriggerState:
    """One trigger. ``messages`` by outcome, since the start."""

    name: str
    kind: str
    connected: bool = True
    last_error: str | None = None
    messages: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlaceState:
    """One of several places: how many workspaces have it, and the batches that this process has to store there."""

    place: str
    workspaces: int = 0
    problem: str | None = None
    waiting_batches: int = 0
    waiting_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoreState:
    """The places of the parts. ``batches`` by state, if not stored; parts, rows and bytes since the start.

    ``place`` is the common place. ``places`` is empty if there is no other; those with problems are first.
    """

    place: str = ""
    problem: str | None = None
    unavailable: int = 0
    places: tuple[PlaceState, ...] = ()
    batches: Mapping[str, int] = field(default_factory=dict)
    sealed_bytes: int = 0
    parts: int = 0
    rows: int = 0
    part_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReplicasState:
    """The replicas that share the ledger: this one, and how many workspaces are assigned to each.

    ``unserved`` names the unserved workspaces, as ``ledger.Replicas`` defines them.
    """

    own: str = ""
    assigned: Mapping[str, int] = field(default_factory=dict)
    unserved: tuple[str, ...] = ()

    def rank_assigned(self) -> list[tuple[str, int]]:
        """Return how many workspaces are assigned to each replica: this one first, then those with the most."""
        return sorted(self.assigned.items(), key=lambda each: (each[0] != self.own, -each[1], each[0]))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The service at one moment. ``conditions`` are the components that do not work.

    ``unconfigured_at_risk`` counts the pairs at risk of each workspace that is not configured. ``captures`` counts
    those since the start, by verdict and name of the reading. ``lateness`` is how late they were, and ``durations`` is
    how long requests took, in seconds. ``clock_difference_seconds`` is how much this machine's clock is ahead of
    Braze's; None until it is confirmed.
    """

    taken_at: float
    started_at: float
    version: str = ""
    workspaces: tuple[WorkspaceState, ...] = ()
    triggers: tuple[TriggerState, ...] = ()
    store: StoreState = StoreState()
    replicas: ReplicasState = ReplicasState()
    books: Books | None = None
    rejections: tuple[Rejection, ...] = ()
    conditions: tuple[Condition, ...] = ()
    unconfigured_at_risk: Mapping[str, int] = field(default_factory=dict)
    captures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lateness: HistogramState = _NO_VALUES
    durations: HistogramState = _NO_VALUES
    clock_difference_seconds: float | None = None

    def rank_workspaces(self) -> list[WorkspaceState]:
        """Return the workspaces with the most serious problems first.

        The order is by pairs at risk, the cause of a hold, then the nearest deadline.
        """
        return sorted(
            self.workspaces,
            key=lambda each: (
                -bool(each.at_risk),
                -get_hold_severity(each.hold_cause),
                -each.at_risk,
                math.inf if each.nearest_deadline is None else each.nearest_deadline,
            ),
        )

    def unready_reasons(self) -> list[str]:
        """Return sentences that say why the process can do no useful work; an empty list means that it is ready."""
        busy = {
            each.name: each.due > 0 or self.taken_at - each.last_captured_at < BUSY_SECONDS for each in self.workspaces
        }
        return [safe_text(each.sentence) for each in blocking_conditions(self.conditions, busy)]

    def alerts(self) -> list[str]:
        """Return sentences for an operator, the most urgent first; an empty list means that the service is healthy."""
        reasons = [_workspace_at_risk(each, self.taken_at) for each in self.workspaces if each.at_risk]
        reasons += [_at_risk(name, count) for name, count in self.unconfigured_at_risk.items() if count]
        if conflicts := self.store.batches.get("conflict"):
            batches = quantity(conflicts, "batch", "batches")
            reasons.append(f"{batches} cannot be stored: a part of the same name exists with different bytes")
        if self.books is not None and not self.books.balanced:
            reasons.append("The books do not balance: keep a copy of the ledger and report it")
        return [
            *reasons,
            *(f"{safe_text(each.sentence)} (for {duration(self.taken_at - each.since)})" for each in self.conditions),
        ]


def _at_risk(workspace: str, pairs: int) -> str:
    return f'Workspace "{workspace}": {quantity(pairs, "pair")} at risk of expiring unread'


def _workspace_at_risk(workspace: WorkspaceState, now: float) -> str:
    sentence = _at_risk(workspace.name, workspace.at_risk)
    if workspace.nearest_deadline is not None:
        sentence += f"; the nearest deadline is {ago(workspace.nearest_deadline, now)}"
    if workspace.hold_cause in ("rate_limited", "throttled"):
        sentence += ", and the rate limit allows no requests now"
    return sentence
