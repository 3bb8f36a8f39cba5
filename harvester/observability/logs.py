"""Logs: structured, to stderr, for people on a terminal and as JSON where asked.

No value can break the log, and no line shows a secret: texts from outside are scrubbed where they come in, and every
line again here. Warnings of libraries are events like all others.
"""

import contextlib
import json as standard_json
import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO, cast

import orjson
import structlog

from harvester.observability.redaction import SHORT, scrub, scrub_foreign

Event = MutableMapping[str, Any]

log = structlog.get_logger()


class _Stderr:
    """Standard error as it is by now: a progress view puts a thing in its place that keeps lines off its own.

    A line that cannot be written, on a full disk or to a reader that is gone, is lost and ends nothing.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def set_up_logs(*, json: bool, level: str) -> None:
    """Send what is at ``level`` or above to stderr, one event a line; control characters never pass as they are."""
    lines = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _never_failing(_as_json if json else lambda event: _on_one_line(lines(None, "", event))),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,  # made anew for every event, a logger costs more than most events
    )
    logging.getLogger().handlers = [_Libraries(logging.WARNING)]


def _never_failing(render: Callable[[Event], str]) -> Callable[[object, str, Event], str]:
    def rendered(_logger: object, _method: str, event: Event) -> str:
        try:
            line = render(event)
        except Exception:  # noqa: BLE001 - a value that no encoder takes must not end what is being logged
            line = standard_json.dumps({_plain(name): _plain(value) for name, value in event.items()})
        return scrub(line, least=SHORT)

    return rendered


def _as_json(event: Event) -> str:
    return orjson.dumps(event, default=_plain).decode()


def _plain(value: object) -> str:
    """Write any value out in ASCII."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - a value may fail to show itself
        text = f"<{type(value).__name__}>"
    return text.encode("ascii", "backslashreplace").decode()


def _on_one_line(text: str) -> str:
    """Spell out what a terminal would obey: the renderer quotes line ends alone."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class _Libraries(logging.Handler):
    """What libraries warn of: without this, Python would print it as it is, with whatever it quotes."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {type(record.exc_info[1]).__name__}"
        except Exception:  # noqa: BLE001 - arguments that don't fit their text
            text = str(record.msg)
        log.warning("library_warned", library=record.name, text=scrub_foreign(text, length=300))
