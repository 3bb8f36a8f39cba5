"""Turns a reading into an outcome: the policy around one request. The only module that imports tenacity.

A transient failure is attempted a few times, then deferred to the ledger. A refused pair is recorded. A 429 slows the
pacer and costs no attempt. A refused key halts the workspace, and so do refusals of several campaigns (``refusals``).
No exception of this module reaches a queue.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_random_exponential

from harvester.braze.admission import NotPermittedError, admit
from harvester.braze.client_counters import ClientCounters
from harvester.braze.endpoint import Endpoint
from harvester.braze.gate import Held, Hold, HoldCause
from harvester.braze.in_flight import InFlight
from harvester.braze.log_fields import get_ids, locate_bug
from harvester.braze.pacer import Pacer
from harvester.braze.series import build_capture, encode_raw_row
from harvester.braze.slots import Slots, unlimited_slots
from harvester.braze.transport import Response, Transport
from harvester.clock import Clock, wait_for_event
from harvester.errors import ExchangeError, Meaning, classify_status
from harvester.model import SERIES_DAYS, Captured, Deferred, Outcome, Pair, Reading, Rejected, Released
from harvester.observability.redaction import scrub_foreign
from harvester.observability.traces import NO_SPAN, Span

ATTEMPTS = 3
BACKOFF = wait_random_exponential(multiplier=0.5, max=8)
STOP_SECONDS = 5.0
"""How long requests in flight may take after a stop. A request that hangs must not delay the seal of the others."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Job:
    """A reading to capture. ``cause`` is the reason for its next request, and the label of its counter."""

    reading: Reading
    get_batch_id: Callable[[], str]
    permit: Callable[[], bool]
    span: Span
    cause: str = "first"


class Client:
    """Captures readings of one workspace."""

    def __init__(
        self,
        *,
        transport: Transport,
        endpoint: str,
        pacer: Pacer,
        clock: Clock,
        keep_raw: bool = False,
        slots: Slots | None = None,
        counters: ClientCounters | None = None,
    ) -> None:
        """Request the ``SERIES_DAYS`` before ``ending_at``, as soon as ``pacer`` permits.

        ``endpoint`` is the URL for messages. With ``keep_raw``, a capture also contains the response as it was
        received. A request needs one of the ``slots`` of the process. ``counters`` continue those of a previous client.
        """
        self.counters = counters or ClientCounters()
        self._slots = slots or unlimited_slots(clock)
        self._transport = transport
        self._pacer = pacer
        self._clock = clock
        self._keep_raw = keep_raw
        self._new_counters: set[str] = set()
        self._stopping = asyncio.Event()
        self._in_flight = InFlight()
        self.endpoint = Endpoint(endpoint, pacer=pacer, in_flight=self._in_flight, clock=clock)
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS - 1),
            before=self._back_off,
            retry=retry_if_result(lambda outcome: isinstance(outcome, Deferred) and pacer.may_retry()),
            retry_error_callback=_get_last_outcome,
        )

    def stop(self) -> None:
        """End every wait; requests in flight may finish within ``STOP_SECONDS``."""
        self._stopping.set()
        self._pacer.stop()
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._in_flight.cancel)

    async def capture(
        self, reading: Reading, *, get_batch_id: Callable[[], str], permit: Callable[[], bool] = lambda: True,
        span: Span = NO_SPAN,
    ) -> Outcome:  # fmt: skip
        """Attempt a reading until it has an outcome. Never raises for anything that the API or the network does.

        ``get_batch_id`` names the batch that takes a response which has just arrived. The capture is returned without
        any wait after that. ``permit`` is called right before each request is sent; if it returns False, no request is
        sent, and the outcome is ``Released``.
        """
        job = _Job(reading, get_batch_id, permit, span)
        try:
            outcome = await self._attempt(job)
            if not isinstance(outcome, Deferred):
                return outcome
            if self._pacer.may_retry():  # tenacity costs too much for the first attempt
                outcome = await self._retrying(self._attempt, job)
        except (Held, NotPermittedError):
            return Released()
        except Exception as bug:  # noqa: BLE001 - one response must not end the capture of all others
            log.error("bug_found", **locate_bug(bug), **get_ids(reading))  # noqa: TRY400 - a trace may quote the key
            return Deferred("bug")
        if isinstance(outcome, Deferred):
            # Already reported by a condition: no request succeeds.
            log_deferral = log.info if self.endpoint.failing is None else log.debug
            log_deferral("reading_deferred", **get_ids(reading), cause=outcome.cause)
            self.endpoint.record_deferral(reading.pair)
        return outcome

    async def request_time(self, pair: Pair, *, ending_at: float) -> bool:
        """Make one request only for the ``Date`` of its response, which the transport observes.

        Returns whether there was a response. The request captures or rejects no pair, and halts no workspace.
        """
        try:
            response = await self._send(pair, ending_at, NO_SPAN, "for_the_time", deadline=-math.inf)
        except Held:
            return False
        except ExchangeError as error:
            self._record_failure(error)
            return False
        match classify_status(response.status):
            case Meaning.TRANSIENT:
                self._record_failure(self._make_error(response))
            case meaning:
                self.counters.responses[f"status_{response.status}"] += 1
                if meaning is Meaning.SUCCESS:
                    self._pacer.record_success()
                elif meaning is Meaning.THROTTLED:
                    self.endpoint.record_throttled(self._make_error(response))
        return True

    async def _attempt(self, job: _Job) -> Outcome:
        """Make one attempt: one request, and one more for each 429. Returns ``Deferred`` if it failed."""
        pair = job.reading.pair
        try:
            while True:
                response = await self._send(
                    pair, job.reading.ending_at, job.span, job.cause, deadline=job.reading.deadline,
                    permit=job.permit,
                )  # fmt: skip
                meaning = classify_status(response.status)
                if meaning is Meaning.SUCCESS:
                    return self._parse(response, job)
                if meaning is Meaning.TRANSIENT:
                    raise self._make_error(response)
                self.counters.responses[f"status_{response.status}"] += 1
                if meaning is Meaning.REJECTED:
                    detail = self._quote(response)
                    self.endpoint.record_refusal(pair, f"status {response.status}: {detail}")
                    return Rejected(f"status_{response.status}", detail)
                if meaning is Meaning.THROTTLED:
                    self.endpoint.record_throttled(self._make_error(response))
                    job.cause = "after_429"
                elif response.old_key:
                    job.cause = "after_old_key"
                else:
                    reason = f"status {response.status}: {self._quote(response)}"
                    self.endpoint.record_refused_key(pair, response.status, reason)
                    return Released()
        except ExchangeError as error:
            self._record_failure(error)
            job.cause = f"retry_after_{error.cause}"
            return Deferred(error.cause)

    async def _send(
        self, pair: Pair, ending_at: float, span: Span, cause: str, *, deadline: float,
        permit: Callable[[], bool] = lambda: True,
    ) -> Response:  # fmt: skip
        """Send one request when it is admitted, count it by its cause, and report its end."""
        slot = await admit(self._pacer, self._slots, deadline=deadline, permit=permit)
        self.counters.requests[cause] += 1
        response: Response | None = None
        try:
            response = await self._in_flight.send(
                self._transport.send_series(pair, length_days=SERIES_DAYS, ending_at=ending_at)
            )
        except ExchangeError as error:
            span.record_attempt(error.cause)
            raise
        finally:
            self._slots.release(slot)
            self._pacer.release(response.quota if response else None, response.latency_seconds if response else None)
        self.counters.durations.observe(response.latency_seconds)
        span.record_attempt(f"status_{response.status}")
        return response

    def _parse(self, response: Response, job: _Job) -> Captured:
        """Turn a 200 into a capture. Raises ``ExchangeError`` if it is unusable."""
        reading, batch_id, now = job.reading, job.get_batch_id(), self._clock.wall()
        try:
            capture = build_capture(
                response.body, reading, batch_id=batch_id, captured_at=now, new_counters=self._new_counters
            )
        except ExchangeError as error:
            self.endpoint.choose_log_method(error.cause)(
                "response_unusable",
                **get_ids(reading),
                cause=error.cause,
                body=self._quote(response),
                request_id=scrub_foreign(response.request_id, length=100),
            )
            raise
        self.counters.responses[f"status_{response.status}"] += 1
        self.endpoint.record_capture(reading.pair.workspace)
        self.counters.last_captured_at = now
        if self._keep_raw:
            return capture._replace(raw=encode_raw_row(response.body, reading, capture, batch_id=batch_id))
        return capture

    def _record_failure(self, error: ExchangeError) -> None:
        self.counters.responses[error.cause] += 1
        self.endpoint.record_failure(error)

    def _make_error(self, response: Response) -> ExchangeError:
        return ExchangeError(f"status_{response.status}", self._quote(response))

    def _quote(self, response: Response) -> str:
        """Return the beginning of a body, safe to log and to store: without the key and control characters."""
        # Scrubbed before it is cut: the first half of a key would not be recognized.
        text = self._transport.scrub(response.body[:16_384].decode("utf-8", "replace"))
        return text[:200].encode("unicode_escape").decode()

    async def _back_off(self, state: RetryCallState) -> None:
        """Wait before a retry: up to 0.5 s before the first, up to 1 s before the second. Raises ``Held`` on a stop."""
        if await wait_for_event(self._stopping, timeout_seconds=BACKOFF(state)):
            raise Held(Hold(HoldCause.STOPPING, self._clock.monotonic()))


def _get_last_outcome(state: RetryCallState) -> Outcome:
    assert state.outcome is not None
    outcome: Outcome = state.outcome.result()
    return outcome
