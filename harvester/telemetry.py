"""Logs: structured, to stderr, for people on a terminal and as JSON where asked."""

import logging
import sys
from typing import TextIO, cast

import orjson
import structlog


class _Stderr:
    """Standard error as it is by now: a progress view puts a thing in its place that keeps lines off its own."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def set_up_logs(*, json: bool, level: str) -> None:
    """Send what is at ``level`` or above to stderr, one event a line; control characters never pass as they are."""
    renderer = structlog.processors.JSONRenderer(
        serializer=lambda event, **_: orjson.dumps(event, default=repr).decode()
    )
    lines = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer if json else lambda *given: _on_one_line(lines(*given)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,  # made anew for every event, a logger costs more than most events
    )


def _on_one_line(text: str) -> str:
    """Spell out what a terminal would obey: the renderer quotes line ends alone."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
