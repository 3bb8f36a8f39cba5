"""The log for a person at a terminal: one short line for each cause, and a count of those that follow.

The words of an event and its fields make the line, so a new event needs no text here. ``--log-level`` or ``--log-text``
show the whole log instead.
"""

from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

import click
import structlog

from harvester.cli.layout import shorten, wrap
from harvester.errors import format_cause
from harvester.text import printable

Event = MutableMapping[str, Any]

_COLORS = {"warning": "yellow", "error": "red"}
_SAME_CAUSE = {"key_unusable": "workspace_halted"}
"""Events that repeat what another one has said about a cause."""

_HINTS = {"response_unusable": "it is requested again"}
"""What a line says of events that need nothing from the user, and therefore have no hint."""

_LISTS = ("workspaces", "settings", "triggers", "variables")
_SHORTEST_TEXT = 20


class ShortLog:
    """Renders log events, and counts those of a cause that has a line already."""

    def __init__(self, get_width: Callable[[], int], *, color: bool) -> None:
        """Render for the current width of a terminal, with or without color."""
        self._get_width = get_width
        self._color = color
        self._lines: dict[tuple[str, str], str] = {}
        self._repeated: Counter[tuple[str, str]] = Counter()

    @property
    def repeated(self) -> int:
        """How many events were counted instead of printed."""
        return self._repeated.total()

    def render(self, event: Event) -> str:
        """Return the line of an event. Raises ``structlog.DropEvent`` if its cause has a line already."""
        name, words, text, width = str(event["event"]), _get_words(event), _get_text(event), self._get_width()
        key = _SAME_CAUSE.get(name, name), str(event.get("cause") or text or words)
        if key in self._lines:
            self._repeated[key] += name == key[0]
            raise structlog.DropEvent
        self._lines[key] = f"{name.replace('_', ' ')}: {text}" if text else words
        level = str(event["level"])
        text = _fit_text(event, text, width - len(f"{level}: {words}: "))
        first, *more = wrap(printable(f"{level}: {words}: {text}" if text else f"{level}: {words}"), width, indent=2)
        if self._color:
            first = click.style(level, fg=_COLORS.get(level)) + first[len(level) :]
        return "\n".join([first, *more])

    def list_repeated(self) -> list[str]:
        """Return a line for each cause with further events."""
        width = self._get_width()
        return [
            shorten(f"{count} more like this: {self._lines[key]}", width) for key, count in self._repeated.most_common()
        ]


def _get_words(event: Event) -> str:
    """Return the words of an event, and what it is about: ``workspace "eu": endpoint unavailable``."""
    words = str(event["event"]).replace("_", " ")
    for name in _LISTS:
        if value := event.get(name):
            words += f" ({value if isinstance(value, str) else ', '.join(map(str, value))})"
    workspace = event.get("workspace")
    if workspace is None or workspace == "default":
        return words
    subject, _, state = words.partition(" ")
    return f'workspace "{workspace}" {state}' if subject == "workspace" else f'workspace "{workspace}": {words}'


def _get_text(event: Event) -> str:
    """Return why an event happened: a sentence if it has one, and otherwise its cause."""
    text = event.get("reason") or event.get("error") or event.get("text") or format_cause(str(event.get("cause") or ""))
    location = f" at {event['location']}" if event.get("location") else ""
    return f"{text}{location}"


def _fit_text(event: Event, text: str, room: int) -> str:
    """Return the text, and what to do if there is room for both. What to do is never cut if it stands alone."""
    hint = str(event.get("hint") or _HINTS.get(event["event"], ""))
    if not text:
        return hint
    if len(text) > room and event.get("cause"):
        text = format_cause(str(event["cause"]))
    return f"{text}; {hint}" if hint and len(f"{text}; {hint}") <= room else shorten(text, max(room, _SHORTEST_TEXT))
