"""Tracks the state of a workspace's endpoint: it works, fails, is in doubt, or halts the workspace.

It adjusts the pacer to each new state. ``client`` makes the requests and reports their results.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from harvester.braze.gate import HALTED_SECONDS, REFUSED_SECONDS, HoldCause
from harvester.braze.in_flight import InFlight
from harvester.braze.pacer import Pacer
from harvester.braze.refusals import WRONG_IDS_HINT, Refusals, Trust, keep_newest
from harvester.clock import Clock
from harvester.condition import HOLD_DESCRIPTIONS, Failing
from harvester.errors import ExchangeError
from harvester.model import DAY_SECONDS, Pair

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a workspace makes no requests except probes, and since when, in monotonic seconds."""

    reason: str
    cause: str
    since: float


class Endpoint:
    """The state of one workspace's endpoint."""

    def __init__(self, url: str, *, pacer: Pacer, in_flight: InFlight, clock: Clock) -> None:
        """Begin without results. ``url`` names the endpoint in messages."""
        self.url = url
        self.halt: Halt | None = None
        self.failing: Failing | None = None
        """The current series of failed requests; None while requests succeed, or if none was made."""
        self.failed_campaigns: dict[str, None] = {}
        """Campaigns whose pairs failed since the last usable response. The next probe requests another campaign."""
        self.refusals = Refusals()
        self._pacer = pacer
        self._in_flight = in_flight
        self._clock = clock
        self._warned_days: dict[str, int] = {}

    def describe_hold(self, cause: str) -> str:
        """Return what a hold waits for, in words for people; if requests fail, how the last one failed."""
        if cause == HoldCause.OVERLOADED and self.failing:
            return f"{self.url} ({self.failing.detail})"
        return HOLD_DESCRIPTIONS.get(cause, cause)

    def record_success(self) -> None:
        """Record a usable response. One that was in flight does not end the failure that a 429 began."""
        self._pacer.record_success()
        self.failed_campaigns.clear()
        if self.failing is not None and not self._is_throttled():
            self.failing = None

    def record_failure(self, error: ExchangeError) -> None:
        """Record a failed request and its cause."""
        self._set_failing(error)
        self._pacer.record_failure()

    def record_throttled(self, error: ExchangeError) -> None:
        """Record a 429. While the quota has requests left, or is unknown, it is a failure like others."""
        if not self._pacer.record_throttled():
            self._set_failing(error)

    def record_deferral(self, pair: Pair) -> None:
        """Record that a pair's attempts failed."""
        keep_newest(self.failed_campaigns, pair.campaign_id)

    def record_refusal(self, pair: Pair, response: str) -> None:
        """Record that a pair was refused, and hold all requests if that puts the endpoint in doubt."""
        self.record_success()
        self.refusals.add_refusal(pair.campaign_id, response)
        self._apply_trust(pair.workspace)

    def record_capture(self, workspace: str) -> None:
        """Record a capture: the endpoint is right, and the pairs that were refused before it are wrong."""
        if self.refusals.count or self.refusals.trust is not Trust.TRUSTED:
            self._restore_trust(workspace)
        self.record_success()
        if self.halt is not None and not self._in_flight.was_sent_before_halt():
            self.halt = None

    def record_refused_key(self, pair: Pair, status: int, reason: str) -> None:
        """Halt the workspace: the key or its permission is wrong."""
        ids = {"campaign_id": pair.campaign_id, "send_id": pair.send_id}
        self._halt(reason, HALTED_SECONDS, cause=f"status_{status}", workspace=pair.workspace, **ids)

    def record_no_other_campaign(self, workspace: str) -> bool:
        """Update the trust: no pair is due except those of refused campaigns. Returns whether to claim at once."""
        before, claim = self.refusals.trust, self.refusals.record_no_other_campaign()
        if self.refusals.trust is not before:
            self._apply_trust(workspace)
        return claim

    def choose_log_method(self, cause: str) -> Callable[..., object]:
        """Return the log method for a cause: a warning once a day, otherwise debug."""
        today = int(self._clock.wall() // DAY_SECONDS)
        warned_today = self._warned_days.get(cause) == today
        self._warned_days[cause] = today
        return log.debug if warned_today else log.warning  # type: ignore[no-any-return] # structlog types no logger

    def _is_throttled(self) -> bool:
        last_cause = self.failing.cause if self.failing else ""
        return last_cause == "status_429" and self._pacer.hold_cause is HoldCause.THROTTLED

    def _set_failing(self, error: ExchangeError) -> None:
        since = self.failing.since if self.failing else self._clock.monotonic()
        self.failing = Failing(since, error.cause, str(error))

    def _apply_trust(self, workspace: str) -> None:
        if self.refusals.trust is Trust.HALTED:
            reason = str(self.refusals)
            self._halt(reason, REFUSED_SECONDS, cause="refusals", workspace=workspace, hint=WRONG_IDS_HINT)
        elif self.refusals.trust is Trust.DOUBTED:
            self._pacer.doubt()

    def _restore_trust(self, workspace: str) -> None:
        count, refused = self.refusals.count, str(self.refusals)
        doubted = self.refusals.add_capture()
        if doubted:
            self._pacer.lift(HoldCause.REFUSED)
        if doubted and count:
            log_refused = self.choose_log_method("refused")
            log_refused("pairs_refused", workspace=workspace, reason=refused, hint=WRONG_IDS_HINT)

    def _halt(self, reason: str, seconds: float, *, cause: str, **log_fields: str) -> None:
        if self.halt is None:
            log.error("workspace_halted", **log_fields, cause=cause, reason=reason)
        self.halt = Halt(reason, cause, self.halt.since if self.halt else self._clock.monotonic())
        self.failing = None  # it responds
        self._in_flight.begin_halt()
        self._pacer.halt(seconds)
