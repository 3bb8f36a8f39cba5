"""Which parts do not work, why and since when; and whether the process can still do useful work.

A ``Condition`` is one such part. The status page, ``/readyz``, the metrics, the alerts and the log all read the same
conditions, so they cannot contradict each other. Nothing here reads a clock, a socket or the ledger, but for
``ConditionLog``, which remembers what it has logged.

To add a part: name it in ``Part``, give it a scope and its log events in the tables below, and let
``Watch.conditions`` return a ``Condition`` while it does not work.
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

log = structlog.get_logger()


class Scope(StrEnum):
    """What a part serves, and so what ``Condition.subject`` names: nothing, a workspace or a trigger."""

    PROCESS = "process"
    WORKSPACE = "workspace"
    TRIGGER = "trigger"


class Part(StrEnum):
    """The parts outside the process that can fail."""

    LEDGER = "ledger"
    STORE = "store"
    CLOCK = "clock"
    ENDPOINT = "endpoint"
    KEY = "key"
    BROKER = "broker"

    @property
    def scope(self) -> Scope:
        """What it serves."""
        return _SCOPES.get(self, Scope.PROCESS)


_SCOPES = {Part.ENDPOINT: Scope.WORKSPACE, Part.KEY: Scope.WORKSPACE, Part.BROKER: Scope.TRIGGER}
_EVENTS = {Part.CLOCK: ("clock_wrong", "clock_right"), Part.KEY: ("key_unusable", "key_usable")}
_SENTENCES = {
    Part.LEDGER: "The ledger cannot be used",
    Part.STORE: "Parts cannot be stored",
    Part.CLOCK: "The clock is wrong",
    Part.ENDPOINT: 'No call of workspace "{subject}" succeeds',
    Part.KEY: 'Workspace "{subject}" is halted',
    Part.BROKER: 'Trigger "{subject}" is not connected',
}
_KEY_FILE_SENTENCE = 'The key file of workspace "{subject}" cannot be used; the previous key stays in use'


@dataclass(frozen=True, slots=True)
class Condition:
    """A part that does not work, or not as it should.

    ``cause`` is one of a closed set, such as ``connection refused`` or ``502``, and serves as a label. ``since`` is in
    wall-clock seconds. ``detail`` is a sentence for people; it may quote strangers, so it is escaped where it is shown.
    ``blocks``: whether the part cannot work at all, as opposed to a fault that needs a look and stops nothing.
    """

    part: Part
    cause: str
    since: float
    subject: str = ""
    detail: str = ""
    blocks: bool = True

    @property
    def scope(self) -> Scope:
        """What the part serves."""
        return self.part.scope

    @property
    def sentence(self) -> str:
        """Say what does not work, and why."""
        what = _SENTENCES[self.part] if self.blocks or self.part is not Part.KEY else _KEY_FILE_SENTENCE
        return f"{what.format(subject=self.subject)}: {self.detail or self.cause}"


@dataclass(frozen=True, slots=True)
class Failing:
    """Calls have failed since a moment (monotonic) and none has succeeded; ``cause`` and ``detail`` are the last's."""

    since: float
    cause: str
    detail: str


_UNREACHED = {"connection refused", "name not found", "certificate", "tls", "unreachable", "network"}


def failed_call(endpoint: str, failing: Failing) -> str:
    """Say in a sentence what came of the last call to an endpoint."""
    if failing.cause.isdecimal():
        return f"{endpoint} answers {failing.detail}"
    if failing.cause in _UNREACHED:
        return f"cannot connect to {endpoint}: {failing.detail}"
    return f"no usable answer from {endpoint}: {failing.detail}"


def not_ready(conditions: Iterable[Condition], busy: Mapping[str, bool]) -> list[Condition]:
    """Give the conditions for which the process can do no useful work; none means that it is ready.

    ``busy`` says of each workspace that the process serves whether it has readings to capture. What the whole process
    needs makes it unready. Workspaces do so only where every busy one is blocked (or all, where none is busy).
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
            log.warning(ends, **subject, cause=condition.cause, seconds=seconds)
        else:
            hint = {"hint": condition.detail} if condition.detail else {}
            log.warning(begins, **subject, cause=condition.cause, seconds=seconds, **hint)


_ERRNOS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.EHOSTUNREACH: "unreachable", errno.ENETUNREACH: "unreachable", errno.ENETDOWN: "unreachable",
    errno.ECONNRESET: "disconnected", errno.ECONNABORTED: "disconnected", errno.EPIPE: "disconnected",
    errno.ETIMEDOUT: "timeout",
    errno.EMFILE: "too_many_open_files", errno.ENFILE: "too_many_open_files",
    errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full",
    errno.EACCES: "permission_denied", errno.EPERM: "permission_denied", errno.EROFS: "read_only",
    errno.ENOENT: "not_found",
    errno.EIO: "disk_error",
}  # fmt: skip
_BEFORE_ERRNO = (ssl.SSLError, socket.gaierror)
"""Errors whose number is not the system's."""

_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, "certificate"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "name_not_found"),
    (TimeoutError, "timeout"),
    (ConnectionError, "disconnected"),
    (EOFError, "disconnected"),
)
"""From the most specific on."""


def cause_of(error: BaseException) -> str | None:
    """Name the cause of a failure by the types and numbers of what was raised, never by its text; None if unknown.

    Libraries wrap what the system said, so the errors inside are looked at too.
    """
    for each in _with_inner(error):
        if isinstance(each, OSError) and each.errno in _ERRNOS and not isinstance(each, _BEFORE_ERRNO):
            return _ERRNOS[each.errno]
        for kind, cause in _KINDS:
            if isinstance(each, kind):
                return cause
    return None


def plain(cause: str) -> str:
    """Write a cause as people read it: ``connection refused``, ``502``."""
    return cause.removeprefix("status_").replace("_", " ")


def _with_inner(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those inside it, the innermost first: it knows best what happened."""
    seen: list[BaseException] = []
    todo: list[BaseException] = [error]
    while todo and len(seen) < 20:
        each = todo.pop(0)
        if each not in seen:
            seen.append(each)
            inner = (each.__cause__, each.__context__, *getattr(each, "__dict__", {}).values(), *each.args)
            todo += [one for one in inner if isinstance(one, BaseException)]
    yield from reversed(seen)
