"""Formats figures and times for people. Pure functions; all times are UTC."""

from datetime import UTC, datetime

from harvester.observability.redaction import scrub

_GAP = "\N{NO-BREAK SPACE}"
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
LONGEST_TEXT = 300


def number(count: float) -> str:
    """Format a count in full, in groups of three digits."""
    return f"{count:,.0f}"


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """Format a count with its noun, in the singular or plural."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


def compact(count: float) -> str:
    """Format a count in at most four characters: 812, 1.2k, 12k, 3.4M."""
    for size, letter in _STEPS:
        if count >= size:
            scaled = count / size
            return f"{int(scaled * 10) / 10:.1f}{letter}" if scaled < 10 else f"{int(scaled)}{letter}"
    return f"{count:.0f}"


def volume(size_bytes: float) -> str:
    """Format a number of bytes."""
    for size, letter in _STEPS:
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {letter}B"
    return f"{size_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Format a duration in its two largest units, without line breaks."""
    total = max(0, round(seconds))
    counts = [(total // 86_400, "d"), (total // 3600 % 24, "h"), (total // 60 % 60, "min")]
    while counts and not counts[0][0]:
        del counts[0]
    return _GAP.join(f"{count}{_GAP}{unit}" for count, unit in counts[:2] if count) or f"{total}{_GAP}s"


def ago(at: float, now: float) -> str:
    """Format a time relative to now."""
    return f"in{_GAP}{duration(at - now)}" if at >= now else f"{duration(now - at)} ago"


def time_of_day(at: float) -> str:
    """Format the time of day."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"


def day_and_time(at: float) -> str:
    """Format a time with its day."""
    return f"{datetime.fromtimestamp(at, UTC):%a %-d %b %H:%M} UTC"


def iso_time(at: float) -> str:
    """Format a time to the second in RFC 3339, for requests, JSON and the ``datetime`` attribute of an element."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def safe_text(text: str) -> str:
    """Return foreign text without secrets, on one line, truncated, with control characters escaped."""
    visible = scrub(text)
    if not visible.isprintable():
        kept = visible[: LONGEST_TEXT + 1]  # one more than is shown, so that a longer text ends with the ellipsis
        visible = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in kept)
    return visible if len(visible) <= LONGEST_TEXT else visible[: LONGEST_TEXT - 1] + "…"
