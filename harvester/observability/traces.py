"""Traces: what took how long, as spans of OpenTelemetry. The only door to its library, an extra that need not be there.

While traces are off, which they are unless ``set_up_traces`` is given an exporter, every span is the one that records
nothing. No span ever holds a key, a URL or a body: only names, ids, counts, statuses and outcomes.
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
"""For how long spans may hold up the end of the process: a drain has 25 seconds in all."""

log = structlog.get_logger()


class Span:
    """Something that takes time. This one records nothing."""

    __slots__ = ()

    def child(self, name: str, **attributes: Any) -> "Span":
        """Begin something that is part of this."""
        del name, attributes
        return self

    def tried(self, status: str) -> None:
        """Note one exchange, and what came of it."""

    def end(self, **attributes: Any) -> None:
        """Be over, with what is known only now."""


NOTHING = Span()


class _Recorded(Span):
    """One that is told to a collector."""

    __slots__ = ("_attempts", "_span", "_tracer")

    def __init__(self, tracer: "Tracer", name: str, parent: Any, attributes: dict[str, Any]) -> None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - an extra that need not be there

        context = None if parent is None else set_span_in_context(parent)
        self._tracer = tracer
        self._attempts = 0
        self._span = tracer.start_span(name, context, attributes=attributes)

    def child(self, name: str, **attributes: Any) -> Span:
        return _Recorded(self._tracer, name, self._span, attributes)

    def tried(self, status: str) -> None:
        self._attempts += 1
        self._span.add_event("exchange", {"status": status})
        self._span.set_attributes({"attempts": self._attempts, "status": status})

    def end(self, **attributes: Any) -> None:
        self._span.set_attributes(attributes)
        self._span.end()


_tracer: "Tracer | None" = None


def begin(name: str, **attributes: Any) -> Span:
    """Begin something that is part of nothing else. ``end`` it, whatever happens; what is not ended is not told."""
    return NOTHING if _tracer is None else _Recorded(_tracer, name, None, attributes)


@contextlib.contextmanager
def traces_to(endpoint: str | None) -> Iterator[None]:
    """Send spans to a collector, as OTLP over HTTP, for as long as this lasts; to none where no endpoint is named.

    The exporter reads the rest of OpenTelemetry's own variables by itself: the endpoint, headers, sampling. A collector
    that is away costs spans and nothing else.
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
    with recorded(OTLPSpanExporter()):
        yield


@contextlib.contextmanager
def recorded(exporter: "SpanExporter") -> Iterator[None]:
    """Send spans to ``exporter`` for as long as this lasts, and at the end what is left, within ``FLUSH_SECONDS``."""
    global _tracer  # noqa: PLW0603 - like logs, spans are begun anywhere and set up once
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra

    told = _Told()
    library = logging.getLogger("opentelemetry")
    library.addHandler(told)
    library.propagate = False
    ours = Resource({"service.name": "harvester", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("harvester", __version__)
    try:
        yield
    finally:
        _tracer = None
        # The library's own ways to end don't keep to a time.
        ending = threading.Thread(target=provider.shutdown, name="last traces", daemon=True)
        ending.start()
        ending.join(FLUSH_SECONDS)
        library.removeHandler(told)


class _Told(logging.Handler):
    """What OpenTelemetry has to say, such as that its collector is away, as a log line like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            log.warning("traces_failed", error=record.getMessage()[:200])
