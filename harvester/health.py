"""Conditions: parts that do not work, why and since when; and whether the process can do useful work.

The status page, ``/readyz``, the metrics, the alerts and the log all use the same conditions, so they cannot contradict
each other. Nothing here reads a socket or the ledger. Only ``ConditionLog`` reads a clock and keeps state.

To add a part: name it in ``Part``, give it a scope, its log events and a sentence in the tables below, and have
``conditions.Conditions`` return a ``Condition`` while it does not work.
"""

import errno
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from harvester.clock import Clock

ENDPOINT_PATIENCE_SECONDS = 60.0
"""An endpoint is unavailable once its calls have failed for so long and none succeeded."""

REPEAT_SECONDS = 600.0
"""How often a condition that lasts is logged again."""

HOLDS = {
    "rate_limited": "the rate limit",
    "throttled": "the rate limit, after status 429",
    "overloaded": "the next probe, because requests fail",
    "refused": "a probe of another campaign, because many pairs in a row were refused",
    "halted": "the next probe, because it is halted",
    "stopping": "the requests in flight, because it is stopping",
}
"""What a workspace waits for while its requests are held, by the cause of the hold; in words for people."""

log = structlog.get_logger()


class Scope(StrEnum):
    """What a part belongs to. ``Condition.subject`` names the workspace or trigger, and is empty for the process."""

    PROCESS = "process"
    WORKSPACE = "workspace"
    TRIGGER = "trigger"


class Part(StrEnum):
    """The parts that can fail or be missing."""

    LEDGER = "ledger"
    STORE = "store"
    CLOCK = "clock"
    ENDPOINT = "endpoint"
    KEY = "key"
    WORKSPACE = "workspace"
    BROKER = "broker"

    @property
    def scope(self) -> Scope:
        """What the part belongs to."""
        return _SCOPES.get(self, Scope.PROCESS)


_SCOPES = {
    Part.ENDPOINT: Scope.WORKSPACE, Part.KEY: Scope.WORKSPACE, Part.WORKSPACE: Scope.WORKSPACE,
    Part.BROKER: Scope.TRIGGER,
}  # fmt: skip
_EVENTS = {
    Part.CLOCK: ("clock_wrong", "clock_right"), Part.KEY: ("key_unusable", "key_usable"),
    Part.WORKSPACE: ("workspace_unserved", "workspace_served"),
}  # fmt: skip
_SENTENCES = {
    Part.LEDGER: "The ledger cannot be used",
    Part.STORE: "Parts cannot be stored",
    Part.CLOCK: "The clock is wrong",
    Part.ENDPOINT: 'No call of workspace "{subject}" succeeds',
    Part.KEY: 'Workspace "{subject}" is halted',
    Part.WORKSPACE: 'Workspace "{subject}" is not served',
    Part.BROKER: 'Trigger "{subject}" is not connected',
}
_KEY_FILE_SENTENCE = 'The key file of workspace "{subject}" cannot be used; the previous key stays in use'


@dataclass(frozen=True, slots=True)
class Condition:
    """A part that does not work, or does not work as it should.

    ``cause`` is one of a closed set, such as ``connection refused`` or ``502``, and serves as a label. ``since`` is in
    wall-clock seconds. ``detail`` is a sentence for people; it may quote foreign text, so it is escaped when shown.
    ``blocks`` is false for a fault that somebody should correct but that stops no work.
    """

    part: Part
    cause: str
    since: float
    subject: str = ""
    detail: str = ""
    blocks: bool = True

    @property
    def scope(self) -> Scope:
        """What the part belongs to."""
        return self.part.scope

    @property
    def sentence(self) -> str:
        """Say what does not work, and why."""
        what = _SENTENCES[self.part] if self.blocks or self.part is not Part.KEY else _KEY_FILE_SENTENCE
        return f"{what.format(subject=self.subject)}: {self.detail or self.cause}"


@dataclass(frozen=True, slots=True)
class Failing:
    """Calls have failed since ``since`` (monotonic seconds); ``cause`` and ``detail`` are those of the last call."""

    since: float
    cause: str
    detail: str


_UNREACHED = {"connection refused", "name not found", "certificate", "tls", "unreachable", "network"}


def failed_call(endpoint: str, failing: Failing) -> str:
    """Return a sentence on how the last call to an endpoint failed."""
    if failing.cause.isdecimal():
        return f"{endpoint} answers {failing.detail}"
    if failing.cause in _UNREACHED:
        return f"cannot connect to {endpoint}: {failing.detail}"
    return f"no usable answer from {endpoint}: {failing.detail}"


def not_ready(conditions: Iterable[Condition], busy: Mapping[str, bool]) -> list[Condition]:
    """Return the conditions that keep the process from useful work; an empty list means that it is ready.

    ``busy`` maps each workspace to whether it has readings to capture. A blocking condition of the process makes it
    unready. Blocked workspaces do so only if every busy workspace is blocked (or all of them, if none is busy).
    """
    blocking = [each for each in conditions if each.blocks]
    reasons = [each for each in blocking if each.scope is Scope.PROCESS]
    by_workspace = [each for each in blocking if each.scope is Scope.WORKSPACE]
    wanted = {name for name, has_work in busy.items() if has_work} or set(busy)
    if wanted and wanted <= {each.subject for each in by_workspace}:
        reasons += by_workspace
    return reasons


class ConditionLog:
    """Logs each condition once when it begins, at most every ten minutes while it lasts, and once when it is over."""

    def __init__(self, clock: Clock) -> None:
        """Nothing is logged yet."""
        self._clock = clock
        self._logged: dict[tuple[Part, str], tuple[Condition, float]] = {}

    def update(self, conditions: Iterable[Condition]) -> None:
        """Log what has changed. ``conditions`` are all that hold now."""
        now = self._clock.monotonic()
        present = {(each.part, each.subject): each for each in reversed(list(conditions))}
        for key in self._logged.keys() - present.keys():
            self._log(self._logged.pop(key)[0], over=True)
        for key, condition in present.items():
            if key not in self._logged or now - self._logged[key][1] >= REPEAT_SECONDS:
                self._logged[key] = (condition, now)
                self._log(condition)

    def _log(self, condition: Condition, *, over: bool = False) -> None:
        begins, ends = _EVENTS.get(condition.part, (f"{condition.part}_unavailable", f"{condition.part}_recovered"))
        subject = {} if condition.scope is Scope.PROCESS else {condition.scope.value: condition.subject}
        seconds = max(0, round(self._clock.wall() - condition.since))
        if over:
            log.warning(ends, **subject, cause=condition.cause, duration_seconds=seconds)
        else:
            reason = {"reason": condition.detail} if condition.detail else {}
            log.warning(begins, **subject, cause=condition.cause, duration_seconds=seconds, **reason)


_ERRNOS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.EHOSTUNREACH: "unreachable", errno.ENETUNREACH: "unreachable", errno.ENETDOWN: "unreachable",
    errno.ECONNRESET: "disconnected", errno.ECONNABORTED: "disconnected", errno.EPIPE: "disconnected",
    errno.ETIMEDOUT: "timeout",
    errno.EMFILE: "too_many_open_files", errno.ENFILE: "too_many_open_files",
    errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full",
    errno.EACCES: "permission_denied", errno.EPERM: "permission_denied", errno.EROFS: "read_only",
    errno.ENOENT: "not_found", errno.ENOTDIR: "not_found",
    errno.EIO: "disk_error",
}  # fmt: skip
_BEFORE_ERRNO = (ssl.SSLError, socket.gaierror)
"""Errors whose ``errno`` is not a number of the system."""

_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, "certificate"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "name_not_found"),
    (TimeoutError, "timeout"),
    (ConnectionError, "disconnected"),
    (EOFError, "disconnected"),
)
"""The most specific types first."""


def cause_of(error: BaseException) -> str | None:
    """Return the cause of an error by its type and number, never by its text; None if unknown.

    Libraries wrap errors of the system, so the errors inside are checked too.
    """
    for each in _with_inner(error):
        if isinstance(each, OSError) and each.errno in _ERRNOS and not isinstance(each, _BEFORE_ERRNO):
            return _ERRNOS[each.errno]
        for kind, cause in _KINDS:
            if isinstance(each, kind):
                return cause
    return None


def plain(cause: str) -> str:
    """Return a cause in words for people: ``connection refused``, ``502``."""
    return cause.removeprefix("status_").replace("_", " ")


def _with_inner(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside an error, innermost first, then the error: the innermost is the most specific."""
    seen: list[BaseException] = []
    todo: list[BaseException] = [error]
    while todo and len(seen) < 20:
        each = todo.pop(0)
        if each not in seen:
            seen.append(each)
            inner = (each.__cause__, each.__context__, *getattr(each, "__dict__", {}).values(), *each.args)
            todo += [one for one in inner if isinstance(one, BaseException)]
    yield from reversed(seen)
