"""Writes structured logs to stderr, as text for people or as JSON.

No value can break a log line, and no line shows a secret. Texts from outside are scrubbed when they are received, and
every line is scrubbed again here. Warnings of libraries become events.
"""

import contextlib
import json as standard_json
import logging
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO, cast

import orjson
import structlog

from harvester.observability.redaction import SHORT_SECRET_CHARACTERS, scrub, scrub_foreign

Event = MutableMapping[str, Any]

log = structlog.get_logger()


OUTPUT_LOCK = threading.RLock()
"""Held while a log line or the progress on a terminal is written, so that neither interrupts the other."""


class _Stderr:
    """The current ``sys.stderr``, which a progress view replaces to separate log lines from its own lines.

    If a line cannot be written, because the disk is full or there is no reader, it is lost; the process continues.
    """

    def write(self, text: str) -> int:
        with OUTPUT_LOCK, contextlib.suppress(OSError):
            return sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with OUTPUT_LOCK, contextlib.suppress(OSError):
            sys.stderr.flush()


def set_up_logs(*, json: bool, level: str, render: Callable[[Event], str] | None = None) -> None:
    """Write events of at least ``level`` to stderr, one per line, with control characters escaped.

    ``render`` replaces the usual text of an event; it escapes control characters itself.
    """
    render_logfmt = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    render_text = render or (lambda event: _escape_control_characters(render_logfmt(None, "", event)))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _create_renderer(_render_json if json else render_text),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,  # a new logger for each event would cost more than most events
    )
    logging.getLogger().handlers = [_LibraryHandler(logging.WARNING)]


def _create_renderer(render: Callable[[Event], str]) -> Callable[[object, str, Event], str]:
    """Return a processor of structlog that renders an event, fails for none, and masks secrets."""

    def render_safely(_logger: object, _method: str, event: Event) -> str:
        try:
            line = render(event)
        except Exception:  # noqa: BLE001 - a value that cannot be rendered must not end the operation
            line = standard_json.dumps({_to_ascii(name): _to_ascii(value) for name, value in event.items()})
        return scrub(line, min_characters=SHORT_SECRET_CHARACTERS)

    return render_safely


def _render_json(event: Event) -> str:
    return orjson.dumps(event, default=_to_ascii).decode()


def _to_ascii(value: object) -> str:
    """Return any value as ASCII text."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - a value's repr may fail
        text = f"<{type(value).__name__}>"
    return text.encode("ascii", "backslashreplace").decode()


def _escape_control_characters(text: str) -> str:
    """Escape control characters. The renderer of structlog escapes only line ends."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class _LibraryHandler(logging.Handler):
    """Turns warnings of libraries into events. Otherwise Python would print them unscrubbed."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {type(record.exc_info[1]).__name__}"
        except Exception:  # noqa: BLE001 - the arguments do not match the format
            text = str(record.msg)
        log.warning("library_warned", library=record.name, text=scrub_foreign(text, length=300))
