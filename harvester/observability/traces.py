"""Sends traces, as spans of OpenTelemetry.

This is the only module that imports the OpenTelemetry library, an optional extra. Without a collector, nothing is
recorded. Spans contain names, ids, counts, statuses and outcomes, but never a key, a URL or a body.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import structlog

from harvester import __version__
from harvester.errors import install_hint

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

FLUSH_SECONDS = 3.0
"""How long sending the last spans may delay the end of the process."""

log = structlog.get_logger()


class Span:
    """An operation with a duration. This base class records nothing."""

    __slots__ = ()

    def child(self, name: str, **attributes: Any) -> "Span":
        """Begin a child span."""
        del name, attributes
        return self

    def set(self, **attributes: Any) -> None:
        """Set attributes."""

    def record_attempt(self, status: str) -> None:
        """Record one request and its status."""

    def end(self, **attributes: Any) -> None:
        """Set the last attributes, and end the span."""


NO_SPAN = Span()


class _RecordedSpan(Span):
    """A span that is sent to a collector."""

    __slots__ = ("_attempts", "_span", "_tracer")

    def __init__(self, tracer: "Tracer", name: str, parent: Any, attributes: dict[str, Any]) -> None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - an optional extra

        context = None if parent is None else set_span_in_context(parent)
        self._tracer = tracer
        self._attempts = 0
        self._span = tracer.start_span(name, context, attributes=attributes)

    def child(self, name: str, **attributes: Any) -> Span:
        return _RecordedSpan(self._tracer, name, self._span, attributes)

    def set(self, **attributes: Any) -> None:
        self._span.set_attributes(attributes)

    def record_attempt(self, status: str) -> None:
        self._attempts += 1
        self._span.add_event("attempt", {"status": status})
        self._span.set_attributes({"attempts": self._attempts, "status": status})

    def end(self, **attributes: Any) -> None:
        self._span.set_attributes(attributes)
        self._span.end()


_tracer: "Tracer | None" = None


def begin_span(name: str, **attributes: Any) -> Span:
    """Begin a root span. Always call ``end``: a span without an end is not sent."""
    return NO_SPAN if _tracer is None else _RecordedSpan(_tracer, name, None, attributes)


@contextlib.contextmanager
def send_traces_to(endpoint: str | None) -> Iterator[None]:
    """Send spans to a collector as OTLP over HTTP, until the block ends.

    Without an endpoint, no span is sent. OpenTelemetry reads its other variables itself, such as headers and sampling.
    If the collector is unavailable, only spans are lost.
    """
    if endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    except ImportError:
        log.warning("traces_disabled", hint=f"OTEL_EXPORTER_OTLP_ENDPOINT is set; {install_hint('otel')}")
        yield
        return
    with record_spans(OTLPSpanExporter()):
        yield


@contextlib.contextmanager
def record_spans(exporter: "SpanExporter") -> Iterator[None]:
    """Send spans to ``exporter`` until the block ends. The flush at the end takes at most ``FLUSH_SECONDS``."""
    global _tracer  # noqa: PLW0603 - it is set up once and used everywhere, like a logger
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra

    forwarder = _LogForwarder()
    library = logging.getLogger("opentelemetry")
    library.addHandler(forwarder)
    library.propagate = False
    service = Resource({"service.name": "harvester", "service.version": __version__})
    provider = TracerProvider(resource=service.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("harvester", __version__)
    try:
        yield
    finally:
        _tracer = None
        # The shutdown of the library has no reliable timeout.
        shutdown = threading.Thread(target=provider.shutdown, name="trace shutdown", daemon=True)
        shutdown.start()
        shutdown.join(FLUSH_SECONDS)
        library.removeHandler(forwarder)


class _LogForwarder(logging.Handler):
    """Forwards OpenTelemetry's warnings to our log, for example that the collector is unavailable."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            log.warning("traces_failed", error=record.getMessage()[:200])
