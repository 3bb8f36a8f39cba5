"""Structured logs on stderr: text for people, or JSON.

No value can break the log, and no line shows a secret. Texts from outside are scrubbed when they are received, and
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

from harvester.observability.redaction import SHORT, scrub, scrub_foreign

Event = MutableMapping[str, Any]

log = structlog.get_logger()


OUTPUT_LOCK = threading.RLock()
"""Held while a log line or the progress on a terminal is written, so that neither interrupts the other."""


class _Stderr:
    """The current standard error, which a progress view replaces to separate log lines from its own lines.

    A line that cannot be written (full disk, no reader) is lost; the process continues.
    """

    def write(self, text: str) -> int:
        with OUTPUT_LOCK, contextlib.suppress(OSError):
            return sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with OUTPUT_LOCK, contextlib.suppress(OSError):
            sys.stderr.flush()


def set_up_logs(*, json: bool, level: str) -> None:
    """Write events at ``level`` or above to stderr, one per line, with control characters escaped."""
    lines = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _guard(_render_json if json else lambda event: _escape_control_characters(lines(None, "", event))),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,  # creating a logger for each event would cost more than most events
    )
    logging.getLogger().handlers = [_LibraryHandler(logging.WARNING)]


def _guard(render: Callable[[Event], str]) -> Callable[[object, str, Event], str]:
    def rendered(_logger: object, _method: str, event: Event) -> str:
        try:
            line = render(event)
        except Exception:  # noqa: BLE001 - no value may end the operation that is logged
            line = standard_json.dumps({_to_ascii(name): _to_ascii(value) for name, value in event.items()})
        return scrub(line, least=SHORT)

    return rendered


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
    """Escape control characters: the renderer escapes only line ends."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class _LibraryHandler(logging.Handler):
    """Turns warnings of libraries into events; otherwise Python would print them unscrubbed."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {type(record.exc_info[1]).__name__}"
        except Exception:  # noqa: BLE001 - the arguments do not match the format
            text = str(record.msg)
        log.warning("library_warned", library=record.name, text=scrub_foreign(text, length=300))
