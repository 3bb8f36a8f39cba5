"""Conditions: components that do not work, with cause and start time.

The status page, ``/readyz``, the metrics, the alerts and the log use the same conditions, so they cannot contradict
each other. Only ``ConditionLog`` reads a clock and keeps state; the rest is pure.

To add a component: add it to ``Component``, and its scope, log events and sentence to the tables below. Let
``monitor.conditions.Conditions`` return a ``Condition`` while the component does not work.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from harvester.clock import Clock
from harvester.errors import format_cause

OUTAGE_SECONDS = 60.0
"""An endpoint is unavailable once all requests have failed for this time, and a store that has been unavailable for
this time makes the process not ready."""

REPEAT_SECONDS = 600.0
"""How often a condition that lasts is logged again."""

MAX_CONDITIONS = 20
"""How many conditions a response lists, and how many the log has at a time; also how many workspaces it names."""

HOLD_DESCRIPTIONS = {
    "rate_limited": "the rate limit",
    "throttled": "the rate limit, after status 429",
    "overloaded": "the next probe, because requests fail",
    "refused": "a probe of another campaign, because many pairs in a row were refused",
    "halted": "the next probe, because it is halted",
    "stopping": "the requests in flight, because it is stopping",
}
"""What a workspace waits for while its requests are held, by the cause of the hold; in words for people."""

_BY_SEVERITY = ("stopping", "rate_limited", "throttled", "overloaded", "refused", "halted")

log = structlog.get_logger()


def get_hold_severity(cause: str | None) -> int:
    """Return how serious a hold is: 0 for none, and more for a worse one. Lists sort by it to show problems first."""
    return _BY_SEVERITY.index(cause) + 1 if cause in _BY_SEVERITY else 0


def name_workspaces(names: Sequence[str]) -> str:
    """Return the names of workspaces in quotes, at most three of them."""
    quoted = [f'"{name}"' for name in names[:3]] + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
    return f"workspace {quoted[0]}" if len(names) == 1 else f"workspaces {', '.join(quoted[:-1])} and {quoted[-1]}"


class Scope(StrEnum):
    """What a component belongs to. ``Condition.subject`` is the workspace, trigger or place; empty for the process."""

    PROCESS = "process"
    WORKSPACE = "workspace"
    TRIGGER = "trigger"
    PLACE = "place"


class Component(StrEnum):
    """The components that can fail or be missing."""

    LEDGER = "ledger"
    STORE = "store"
    CLOCK = "clock"
    CONFIG = "config"
    ENDPOINT = "endpoint"
    KEY = "key"
    WORKSPACE = "workspace"
    BROKER = "broker"

    @property
    def scope(self) -> Scope:
        """What the component belongs to."""
        return _SCOPES.get(self, Scope.PROCESS)


_SCOPES = {
    Component.ENDPOINT: Scope.WORKSPACE,
    Component.KEY: Scope.WORKSPACE,
    Component.WORKSPACE: Scope.WORKSPACE,
    Component.BROKER: Scope.TRIGGER,
}
_EVENTS = {
    Component.CLOCK: ("clock_wrong", "clock_right"),
    Component.CONFIG: ("config_unusable", "config_usable"),
    Component.KEY: ("key_unusable", "key_usable"),
    Component.WORKSPACE: ("workspace_unconfigured", "workspace_configured"),
}
"""The log events of components whose events are not ``COMPONENT_unavailable`` and ``COMPONENT_recovered``."""
_SENTENCES = {
    Component.LEDGER: "The ledger cannot be used",
    Component.STORE: "Parts cannot be stored",
    Component.CLOCK: "The clock is wrong",
    Component.CONFIG: "The configuration cannot be used, so the previous one stays in use",
    Component.ENDPOINT: 'Every request of workspace "{subject}" fails',
    Component.KEY: 'Workspace "{subject}" is halted',
    Component.WORKSPACE: 'Workspace "{subject}" is not configured',
    Component.BROKER: 'Trigger "{subject}" is not connected',
}
_KEY_FILE_SENTENCE = (
    'The key file of workspace "{subject}" cannot be used, so its old key stays in use '
    "(a new workspace is not served yet)"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A component that does not work, or does not work as it should.

    ``cause`` is a code of ``causes``. ``since`` is in wall-clock seconds. ``detail`` is a sentence for people; it may
    quote text from outside, so pages escape it. ``blocks`` is false for a fault that stops no work. A condition of one
    of several places has the ``workspaces`` whose rows it takes.
    """

    component: Component
    cause: str
    since: float
    subject: str = ""
    detail: str = ""
    blocks: bool = True
    workspaces: tuple[str, ...] = ()

    @property
    def scope(self) -> Scope:
        """What the component belongs to."""
        return Scope.PLACE if self.workspaces else self.component.scope

    @property
    def sentence(self) -> str:
        """Return what does not work, and why."""
        what = _SENTENCES[self.component] if self.blocks or self.component is not Component.KEY else _KEY_FILE_SENTENCE
        if self.workspaces:
            what = f"Parts of {name_workspaces(self.workspaces)} cannot be stored"
        return f"{what.format(subject=self.subject)}: {self.detail or format_cause(self.cause)}"


@dataclass(frozen=True, slots=True)
class Failing:
    """Requests have failed since ``since`` (monotonic seconds). ``cause`` and ``detail`` are those of the last one."""

    since: float
    cause: str
    detail: str


_NOT_CONNECTED = {"connection_refused", "name_not_found", "certificate", "tls", "unreachable", "network"}


def describe_failed_request(endpoint: str, failing: Failing) -> str:
    """Return a sentence that says how the last request to an endpoint failed."""
    if failing.cause.startswith("status_"):
        return f"{endpoint} responds with {failing.detail}"
    if failing.cause in _NOT_CONNECTED or failing.cause.startswith("proxy_"):
        return f"cannot connect to {endpoint}: {failing.detail}"
    return f"no usable response from {endpoint}: {failing.detail}"


class ConditionLog:
    """Logs each condition when it begins, every ten minutes while it lasts, and when it ends.

    Of more than ``MAX_CONDITIONS`` at the same time, it logs those that block work first, and the number of the others.
    """

    def __init__(self, clock: Clock) -> None:
        """Nothing is logged yet."""
        self._clock = clock
        self._logged: dict[tuple[Component, str], tuple[Condition, float]] = {}

    def update(self, conditions: Iterable[Condition]) -> None:
        """Log changes. ``conditions`` are all present conditions."""
        now = self._clock.monotonic()
        present = {(each.component, each.subject): each for each in reversed(list(conditions))}
        changed = [(self._logged.pop(key)[0], True) for key in self._logged.keys() - present.keys()]
        for key, condition in present.items():
            if key not in self._logged or now - self._logged[key][1] >= REPEAT_SECONDS:
                self._logged[key] = (condition, now)
                changed.append((condition, False))
        if len(changed) > MAX_CONDITIONS:
            changed.sort(key=lambda each: (not each[0].blocks, each[0].scope is not Scope.PROCESS, each[1]))
        for condition, ended in changed[:MAX_CONDITIONS]:
            self._log(condition, ended=ended)
        if (omitted := len(changed) - MAX_CONDITIONS) > 0:
            log.warning("conditions_omitted", conditions=omitted, hint="/metrics has all")

    def _log(self, condition: Condition, *, ended: bool) -> None:
        begins, ends = _EVENTS.get(
            condition.component, (f"{condition.component}_unavailable", f"{condition.component}_recovered")
        )
        subject: dict[str, object] = {condition.scope.value: condition.subject} if condition.subject else {}
        if condition.workspaces:
            subject["workspaces"] = list(condition.workspaces[:MAX_CONDITIONS])
        seconds = max(0, round(self._clock.wall() - condition.since))
        if ended:
            log.warning(ends, **subject, cause=condition.cause, duration_seconds=seconds)
        else:
            reason = {"reason": condition.detail} if condition.detail else {}
            log.warning(begins, **subject, cause=condition.cause, duration_seconds=seconds, **reason)
