"""How figures and times read to people: pure functions, UTC throughout."""

from datetime import UTC, datetime

from harvester.observability.redaction import scrub

_GAP = "\N{NO-BREAK SPACE}"
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
LONGEST_TEXT = 300


def number(count: float) -> str:
    """Write a count in full, in groups of three."""
    return f"{count:,.0f}"


def many(count: int, noun: str, plural: str | None = None) -> str:
    """Write a count and what is counted."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


def compact(count: float) -> str:
    """Write a count in four characters at the most, for narrow places: 812, 1.2k, 12k, 3.4M."""
    for size, letter in _STEPS:
        if count >= size:
            scaled = count / size
            return f"{int(scaled * 10) / 10:.1f}{letter}" if scaled < 10 else f"{int(scaled)}{letter}"
    return f"{count:.0f}"


def volume(size_bytes: float) -> str:
    """Write a number of bytes."""
    for size, letter in _STEPS:
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {letter}B"
    return f"{size_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Write a length of time in its two largest units, which no line break parts."""
    total = max(0, round(seconds))
    counts = [(total // 86_400, "d"), (total // 3600 % 24, "h"), (total // 60 % 60, "min")]
    while counts and not counts[0][0]:
        del counts[0]
    return _GAP.join(f"{count}{_GAP}{unit}" for count, unit in counts[:2] if count) or f"{total}{_GAP}s"


def ago(at: float, now: float) -> str:
    """Write a time as seen from now."""
    return f"in{_GAP}{duration(at - now)}" if at >= now else f"{duration(now - at)} ago"


def clock(at: float) -> str:
    """Write the time of day."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"


def moment(at: float) -> str:
    """Write a time with its day."""
    return f"{datetime.fromtimestamp(at, UTC):%a %-d %b %H:%M} UTC"


def machine(at: float) -> str:
    """Write a time for the ``datetime`` of an element."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def shown(text: str) -> str:
    """Give text of strangers without secrets, on one line, not endless: what cannot be seen is spelled out."""
    text = scrub(text)
    seen = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return seen if len(seen) <= LONGEST_TEXT else seen[: LONGEST_TEXT - 1] + "…"
