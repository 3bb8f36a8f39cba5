"""A reading becomes an outcome: the policy around one exchange. The only door to tenacity.

What is transient is tried a few times, then deferred to the ledger; what is refused is recorded; a 429 moves
the pacer and costs no try; a refused key halts the workspace, and so do refusals of several campaigns (``refusals``).
An exception never leaves here for a queue.
"""

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from harvester.braze.pacer import HALTED_SECONDS, REFUSED_SECONDS, Held, Pacer
from harvester.braze.refusals import WRONG_IDS_HINT, Refusals, Trust, keep_newest
from harvester.braze.series import captured, raw_row
from harvester.braze.transport import Answer, Transport
from harvester.clock import Clock, wait_for_event
from harvester.errors import ExchangeError, Meaning, classify_status
from harvester.health import HOLDS, Failing
from harvester.model import DAY_SECONDS, SERIES_DAYS, Captured, Deferred, Outcome, Pair, Reading, Rejected, Returned
from harvester.observability.redaction import scrub_foreign
from harvester.observability.traces import NO_SPAN, Span

TRIES = 3
LANDING_SECONDS = 5.0
"""For how long calls in flight may land once the harvest stops: one that hangs must not cost all others their seal."""

log = structlog.get_logger()


class Client:
    """Captures readings of one workspace. ``calls`` and ``answers`` count what was sent and what came back."""

    def __init__(
        self, *, transport: Transport, endpoint: str, pacer: Pacer, clock: Clock,
        keep_raw: bool = False,
    ) -> None:  # fmt: skip
        """Ask through ``transport`` when ``pacer`` permits, for the ``SERIES_DAYS`` before ``ending_at``.

        ``endpoint`` is named where it does not answer. ``keep_raw``: captures bring the answer as it came too.
        """
        self.calls: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.halted_because: str | None = None
        self.refusals = Refusals()
        self.halted_cause, self.halted_at = "", 0.0
        self.failing: Failing | None = None
        """The present series of failed calls; None while calls succeed, or none was made."""
        self.failed_campaigns: dict[str, None] = {}
        """Campaigns whose pairs failed since the last usable answer. The next probe asks another campaign."""
        self.last_captured_at = 0.0
        self._told_on: dict[str, int] = {}
        self.endpoint = endpoint
        self._transport = transport
        self._pacer = pacer
        self._clock = clock
        self._keep_raw = keep_raw
        self._new_counters: set[str] = set()
        self._stopping = asyncio.Event()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._left_before_halt: set[asyncio.Task[Any]] = set()
        """Tasks whose call was in flight when the workspace was halted: their answers do not end the halt."""
        self._given_up = False
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=0.5, max=8),
            retry=retry_if_exception(lambda error: isinstance(error, ExchangeError) and pacer.may_retry()),
            sleep=self._pause,
            reraise=True,
        )

    def stop(self) -> None:
        """End every wait; what is in flight may still land, for ``LANDING_SECONDS``."""
        self._stopping.set()
        self._pacer.stop()
        asyncio.get_running_loop().call_later(LANDING_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """End the exchanges that are still under way; their readings go back. No other begins once it is stopped."""
        self._given_up = True
        for task in self._under_way:
            task.cancel()

    def why(self, held_because: str) -> str:
        """Return in words what a hold waits for; for an endpoint that fails, how the last request failed."""
        if held_because == "overloaded" and self.failing:
            return f"{self.endpoint} ({self.failing.detail})"
        return HOLDS.get(held_because, held_because)

    async def capture(self, reading: Reading, *, batch_id: str, span: Span = NO_SPAN) -> Outcome:
        """Ask for a reading until it has an outcome. Never raises for anything the API or the network does."""
        try:
            try:
                return await self._try(reading, batch_id, span, "first")
            except ExchangeError as error:
                return await self._try_again(reading, batch_id, span, _lightened(error))
        except Held:
            return Returned()
        except ExchangeError as error:
            log_deferral = log.info if self.failing is None else log.debug  # a condition reports that no call succeeds
            log_deferral("reading_deferred", **_names(reading), cause=error.cause)
            keep_newest(self.failed_campaigns, reading.pair.campaign_id)
            return Deferred(error.cause)
        except Exception as bug:  # noqa: BLE001 - one answer that meets a bug of ours must not cost all others their deadline
            log.error("bug_found", **_place_of(bug), **_names(reading))  # noqa: TRY400 - a trace may quote the key
            return Deferred("bug")

    async def ask_time(self, pair: Pair, *, ending_at: float) -> bool:
        """Make one call only for its answer's ``Date``, which the transport observes; returns whether an answer came.

        It has no other effect: it captures and rejects no pair, and halts no workspace.
        """
        reading = Reading(0, pair, "", ending_at, ending_at, ending_at)
        try:
            answer = await self._exchange(reading, NO_SPAN, "for_the_time")
        except (ExchangeError, Held):
            return False
        match classify_status(answer.status):
            case Meaning.ANSWER:
                self.answers[f"status_{answer.status}"] += 1
                self._pacer.succeeded()
            case Meaning.THROTTLED:
                self._throttled(answer)
            case Meaning.TRANSIENT:
                self._failed(ExchangeError(f"status_{answer.status}", self._detail(answer)))
            case _:
                pass
        return True

    async def _try_again(self, reading: Reading, batch_id: str, span: Span, first: ExchangeError) -> Outcome:
        """Go on after a first try that failed; it counts as one. Only failures pay for the machinery of retries."""
        failed, last = [first], first.cause

        async def tries() -> Outcome:
            nonlocal last
            if failed:
                raise failed.pop()
            try:
                return await self._try(reading, batch_id, span, f"retry_after_{last}")
            except ExchangeError as error:
                last = error.cause
                raise _lightened(error) from None

        outcome: Outcome = await self._retrying(tries)
        return outcome

    async def _try(self, reading: Reading, batch_id: str, span: Span, cause: str) -> Outcome:
        """One try, made for ``cause``: as many exchanges as there are 429s, and one more.

        Raises ``ExchangeError`` or ``Held``.
        """
        while True:
            answer = await self._exchange(reading, span, cause)
            match classify_status(answer.status):
                case Meaning.ANSWER:
                    return self._read(answer, reading, batch_id)
                case Meaning.THROTTLED:
                    self._throttled(answer)
                    cause = "after_429"
                case Meaning.REJECTED:
                    return self._rejected(answer, reading)
                case Meaning.HALTED if answer.old_key:
                    cause = "after_old_key"
                case Meaning.HALTED:
                    because = f"status {answer.status}: {self._detail(answer)}"
                    self._halt(because, HALTED_SECONDS, cause=f"status_{answer.status}", **_names(reading))
                    return Returned()
                case Meaning.TRANSIENT:
                    raise self._failed(ExchangeError(f"status_{answer.status}", self._detail(answer)))

    async def _exchange(self, reading: Reading, span: Span, cause: str) -> Answer:
        """Send one request when it may leave, count it by its cause, and tell the pacer what came of it."""
        await self._pacer.permit()
        self.calls[cause] += 1
        answer: Answer | None = None
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        self._left_before_halt.discard(task)
        try:
            answer = await self._transport.send_series(
                reading.pair, length_days=SERIES_DAYS, ending_at=reading.ending_at
            )
            # What came together is received together, then read together: the same work side by side finds its code
            # and data at hand, which is a tenth of a harvest. All kinds of answers wait alike, and so stay in order.
            await asyncio.sleep(0)
        except ExchangeError as error:
            self.answers[error.cause] += 1
            span.record_attempt(error.cause)
            self._failed(error)
            raise
        except asyncio.CancelledError:
            if not self._given_up or task.uncancel():  # cancelled by others (too)
                raise
            raise Held("stopping", self._clock.monotonic()) from None
        finally:
            self._under_way.discard(task)
            self._pacer.landed(answer.budget if answer else None, answer.latency_seconds if answer else None)
        span.record_attempt(f"status_{answer.status}")
        if classify_status(answer.status) is not Meaning.ANSWER:  # of one that may be, it is yet to be seen what it is
            self.answers[f"status_{answer.status}"] += 1
        return answer

    def _read(self, answer: Answer, reading: Reading, batch_id: str) -> Captured:
        try:
            capture = captured(
                answer.body, reading, batch_id=batch_id, captured_at=self._clock.wall(),
                new_counters=self._new_counters,
            )  # fmt: skip
        except ExchangeError as error:
            self.answers[error.cause] += 1
            self._failed(error)
            self._level(error.cause)(
                "response_unusable", **_names(reading), cause=error.cause, body=self._detail(answer),
                request_id=scrub_foreign(answer.request_id, length=100),
            )  # fmt: skip
            raise
        self.answers[f"status_{answer.status}"] += 1
        if self.refusals.count or self.refusals.trust is not Trust.TRUSTED:
            self._restore_trust(reading.pair.workspace)
        self._succeeded()
        if self.halted_because is not None and asyncio.current_task() not in self._left_before_halt:
            self.halted_because = None
        self.last_captured_at = self._clock.wall()
        if self._keep_raw:
            return capture._replace(raw=raw_row(answer.body, reading, capture, batch_id=batch_id))
        return capture

    def _level(self, cause: str) -> Callable[..., object]:
        """Return the log method for a cause: a warning once a day, otherwise debug."""
        today = int(self._clock.wall() // DAY_SECONDS)
        warned_today = self._told_on.get(cause) == today
        self._told_on[cause] = today
        return log.debug if warned_today else log.warning  # type: ignore[no-any-return]

    def _failed(self, error: ExchangeError) -> ExchangeError:
        """Report a failed call to the pacer, and record why it failed."""
        self._set_failing(error)
        self._pacer.failed()
        return error

    def _set_failing(self, error: ExchangeError) -> None:
        began = self.failing.since if self.failing else self._clock.monotonic()
        self.failing = Failing(began, error.cause, str(error))

    def _throttled(self, answer: Answer) -> None:
        """Stop all calls. While the budget has calls left, or is unknown, a 429 is a failure like others."""
        if not self._pacer.throttled():
            self._set_failing(ExchangeError(f"status_{answer.status}", self._detail(answer)))

    def _succeeded(self) -> None:
        """Report a usable answer. A call that was in flight does not end the failure that a 429 began."""
        self._pacer.succeeded()
        self.failed_campaigns.clear()
        if self.failing is not None and not (self._pacer.throttling and self.failing.cause == "status_429"):
            self.failing = None

    def _rejected(self, answer: Answer, reading: Reading) -> Rejected:
        """Record a refusal, and hold the calls if it puts the endpoint in doubt."""
        self._succeeded()
        detail = self._detail(answer)
        self.refusals.add_refusal(reading.pair.campaign_id, f"status {answer.status}: {detail}")
        self._judge_refusals(reading.pair.workspace)
        return Rejected(f"status_{answer.status}", detail)

    def end_campaigns(self, workspace: str) -> bool:
        """Update the trust if no pair of another campaign is due; returns whether to claim again at once."""
        before, again = self.refusals.trust, self.refusals.end_campaigns()
        if self.refusals.trust is not before:
            self._judge_refusals(workspace)
        return again

    def _judge_refusals(self, workspace: str) -> None:
        if self.refusals.trust is Trust.HALTED:
            self._halt(str(self.refusals), REFUSED_SECONDS, cause="refusals", workspace=workspace, hint=WRONG_IDS_HINT)
        elif self.refusals.trust is Trust.DOUBTED:
            self._pacer.doubt()

    def _restore_trust(self, workspace: str) -> None:
        """Record a capture: the endpoint is right, and the pairs refused before it were wrong."""
        count, refused = self.refusals.count, str(self.refusals)
        doubted = self.refusals.add_capture()
        if doubted:
            self._pacer.mended("refused")
        if doubted and count:
            self._level("refused")("pairs_refused", workspace=workspace, reason=refused, hint=WRONG_IDS_HINT)

    def _halt(self, because: str, seconds: float, *, cause: str, **names: str) -> None:
        if self.halted_because is None:
            log.error("workspace_halted", **names, reason=because)
            self.halted_at = self._clock.monotonic()
        self.halted_because, self.halted_cause = because, cause
        self.failing = None  # it answers
        self._left_before_halt |= self._under_way
        self._pacer.halt(seconds)

    def _detail(self, answer: Answer) -> str:
        """Give the beginning of a body, safe to log and to store: without the key, without control characters."""
        # Scrubbed before it is cut short: a key cut in two would not be known as one.
        text = self._transport.scrub(answer.body[:16_384].decode("utf-8", "replace"))
        return text[:200].encode("unicode_escape").decode()

    async def _pause(self, seconds: float) -> None:
        """Sleep between tries, unless stopping."""
        if await wait_for_event(self._stopping, timeout_seconds=seconds):
            raise Held("stopping", self._clock.monotonic())


def _lightened(error: ExchangeError) -> ExchangeError:
    """Let go of where an error came from: its frames hold the answer, for as long as it waits to be tried again."""
    return error.with_traceback(None)


def _names(reading: Reading) -> dict[str, str]:
    """Name a reading's send for the log."""
    pair = reading.pair
    return {"workspace": pair.workspace, "campaign_id": pair.campaign_id, "send_id": pair.send_id}


def _place_of(bug: Exception) -> dict[str, str]:
    """Tell what happened and where our code was, and no value."""
    where = ""
    for frame, line in traceback.walk_tb(bug.__traceback__):
        if "harvester" in frame.f_globals.get("__name__", ""):
            where = f"{frame.f_globals['__name__']}:{line}"
    return {"error": type(bug).__name__, "location": where, "hint": "please report it; the pair is tried again later"}
