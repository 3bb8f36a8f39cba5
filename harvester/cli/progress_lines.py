"""What the progress of long work looks like: lines of a width. Pure; ``progress.py`` draws them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harvester.cli.layout import Field, Line, Span, align_fields, fit_fields, join_fields, make_bar, measure, shorten
from harvester.cli.output import plural
from harvester.cli.speed import Speed, format_speed
from harvester.condition import get_hold_severity
from harvester.formatting import duration, number, time_of_day

if TYPE_CHECKING:
    from harvester.commands.capture import WorkspaceProgress

MAX_WORKSPACES = 5
"""How many workspaces are listed."""

_SHORTEST_BAR, _LONGEST_BAR = 10, 40
_SHORTEST_HOLD_SECONDS = 1.0
"""Shorter holds are not shown: the lines would move all the time."""

_PARTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """How far a capture is: of one workspace, or of all together.

    ``spare`` is the quota that is left above the reserve, None while it is unknown. ``hold`` says what requests wait
    for, and ``hold_cause`` why; both are empty if they do not wait.
    """

    name: str
    answered: int
    saved: int
    total: int
    per_second: float | None = None
    seconds_left: float | None = None
    spare: int | None = None
    hold: str = ""
    hold_cause: str = ""
    held_seconds: float = 0.0

    @property
    def left(self) -> int:
        """How many pairs have no response yet."""
        return max(0, self.total - self.answered)

    @property
    def slowness(self) -> tuple[int, float, int]:
        """A key to sort by: the most serious hold comes last, then the longest time left."""
        seconds = self.seconds_left if self.seconds_left is not None else float(bool(self.left)) * 1e12
        return get_hold_severity(self.hold_cause or None), seconds, self.left


class CaptureWork:
    """Measures the speed of each workspace of a run while it is watched."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self._speeds: dict[str, Speed] = {}

    def measure(self, workspaces: "Mapping[str, WorkspaceProgress]", now: float) -> list[Work]:
        """Return the work of each workspace; ``now`` is a monotonic time in seconds."""
        return [self._measure(name, each, now) for name, each in workspaces.items()]

    def _measure(self, name: str, progress: "WorkspaceProgress", now: float) -> Work:
        pace, speed = progress.pace, self._speeds.setdefault(name, Speed())
        held = pace.hold_cause is not None and pace.held_seconds >= _SHORTEST_HOLD_SECONDS
        if held:
            speed.pause()
        else:
            speed.observe(progress.answered, now)
        left = max(0, progress.total - progress.answered)
        seconds = speed.estimate_seconds(left)
        if held and seconds is not None:
            # A quota resets at a known time. When an endpoint will work again is unknown.
            seconds = seconds + pace.held_seconds if pace.hold_cause in ("rate_limited", "throttled") else None
        return Work(
            name,
            progress.answered,
            progress.saved,
            progress.total,
            per_second=None if held else speed.per_second,
            seconds_left=seconds,
            spare=max(0, pace.remaining - pace.reserve_requests) if pace.limit else None,
            hold=progress.describe_hold(pace.hold_cause) if held and pace.hold_cause else "",
            hold_cause=pace.hold_cause if held and pace.hold_cause else "",
            held_seconds=pace.held_seconds if held else 0.0,
        )


def capture_lines(every: Sequence[Work], *, width: int, wall: float, ascii_only: bool = False) -> list[Line]:
    """Return the progress of a capture at a wall-clock time.

    One workspace has a bar, and a line about what it waits for. Several have a bar for all together and a line each; of
    more than ``MAX_WORKSPACES``, those are listed that are held most seriously, then those that take longest.
    """
    if len(every) == 1:
        (work,) = every
        return [_bar_line(work, width, ascii_only=ascii_only), *_hold_lines(work, width, wall)]
    shown = list(every)
    if len(shown) > MAX_WORKSPACES:
        shown.sort(key=lambda work: work.slowness, reverse=True)
    total = _add_up(every)
    rows = align_fields(
        [_workspace_fields(work, width, wall) for work in shown[:MAX_WORKSPACES]], width - 2, left=(0, 5)
    )
    return [
        _bar_line(total, width, waiting=sum(bool(work.hold) for work in every), ascii_only=ascii_only),
        *([Span("  "), *join_fields(row)] for row in rows),
        *_rest_lines(shown[MAX_WORKSPACES:]),
    ]


def _add_up(every: Sequence[Work]) -> Work:
    """Return the work of all workspaces together: it ends with the slowest one."""
    return Work(
        "",
        sum(work.answered for work in every),
        sum(work.saved for work in every),
        sum(work.total for work in every),
        per_second=_sum_known(work.per_second for work in every),
        seconds_left=max((work.seconds_left for work in every if work.seconds_left is not None), default=None),
    )


def _sum_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _bar_line(work: Work, width: int, *, waiting: int = 0, ascii_only: bool) -> Line:
    fields = [
        Field(f"{number(work.answered)} of {plural(work.total, 'pair', number=number)}"),
        Field(f"{number(work.saved)} saved", 2),
        Field(format_speed(work.per_second)),
        Field("" if work.spare is None else f"quota left {number(work.spare)}", 3),
        Field(f"{waiting} waiting" if waiting else "", 0, "yellow"),
        Field(_format_left(work)),
    ]
    share = work.answered / work.total if work.total else 1.0
    return _add_bar(share, fields, width, ascii_only=ascii_only)


def _add_bar(share: float, fields: Sequence[Field], width: int, *, ascii_only: bool) -> Line:
    """Return the fields that fit, after a bar that takes the space that is left."""
    kept = fit_fields(fields, width - _SHORTEST_BAR - 1)
    cells = min(_LONGEST_BAR, width - measure(kept) - 1)
    bar = [*make_bar(share, cells, ascii_only=ascii_only), Span(" ")] if cells >= _SHORTEST_BAR // 2 else []
    return [*bar, *join_fields(kept)]


def _format_left(work: Work) -> str:
    return "" if work.seconds_left is None or not work.left else f"{_spell(max(1.0, work.seconds_left))} left"


def _spell(seconds: float) -> str:
    """Format a duration; a terminal may have no character for a space without line break."""
    return duration(seconds).replace("\N{NO-BREAK SPACE}", " ")


def _hold_lines(work: Work, width: int, wall: float) -> list[Line]:
    """Return what the requests wait for, and until when; what is too long is cut, but not the time."""
    if not work.hold:
        return []
    if work.hold_cause == "stopping":
        return [[Span("stopping: requests in flight finish first", "yellow")]]
    until = f" until {time_of_day(wall + work.held_seconds)}"
    hold = shorten(work.hold, width - len(f"waiting for {until}"))
    fields = [Field(f"waiting for {hold}{until}", 0, "yellow"), Field(f"in {_spell(work.held_seconds)}", 1, "yellow")]
    return [join_fields(fit_fields(fields, width))]


def _workspace_fields(work: Work, width: int, wall: float) -> list[Field]:
    state, style = _format_left(work) if work.left else "done", ""
    if work.hold:
        hour = time_of_day(wall + work.held_seconds)[:5]
        state, style = f"{work.hold_cause.replace('_', ' ')} until {hour}", "yellow"
    return [
        Field(shorten(work.name, max(8, width // 6))),
        Field(f"{number(work.answered)} of {number(work.total)}"),
        Field(f"{number(work.saved)} saved", 2),
        Field(format_speed(work.per_second)),
        Field("" if work.spare is None else f"quota left {number(work.spare)}", 3),
        Field(state, 0, style),
    ]


def _rest_lines(rest: Sequence[Work]) -> list[Line]:
    if not rest:
        return []
    finished, left = sum(not work.left for work in rest), sum(work.left for work in rest)
    others = plural(len(rest), "other workspace", number=number)
    return [[Span(f"  {others}: {number(finished)} finished, {number(left)} pairs left", "bright_black")]]


def work_line(text: str, seconds: float, width: int) -> Line:
    """Return what work does whose end is unknown, and for how long."""
    spent = _spell(max(1.0, seconds))
    return join_fields([Field(shorten(text, width - len(spent) - 2)), Field(spent)])


class Reading:
    """Measures how lists are read while it is watched: first all lines of a list are read, then its pairs are used."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self._lines, self._pairs, self._share = Speed(), Speed(), Speed()
        self._lines_before = 0
        self._single = False

    def line(
        self, lines: int, share: float | None, *, pairs: int, now: float, width: int, ascii_only: bool = False
    ) -> Line:
        """Return the progress at a monotonic time.

        ``share`` of the only file is read, None if it is read completely, or if that is unknown.
        """
        speed, other = self._lines, self._pairs
        if pairs and lines == self._lines_before:
            speed, other = other, speed
        speed.observe(pairs if speed is self._pairs else lines, now)
        other.pause()
        self._single |= share is not None
        self._lines_before, seconds = lines, None
        if share is not None:
            done = round(share * _PARTS)
            self._share.observe(done, now)
            seconds = self._share.estimate_seconds(_PARTS - done)
        elif self._single and pairs:  # its lines contain at most one pair each
            share, seconds = pairs / lines, self._pairs.estimate_seconds(max(0, lines - pairs))
        fields = [
            Field(f"{plural(lines, 'line', number=number)} read", 1 if pairs else 0),
            Field(plural(pairs, "pair", number=number) if pairs else ""),
            Field(format_speed(speed.per_second)),
            Field(f"{_spell(max(1.0, seconds))} left" if seconds else ""),
        ]
        if share is None:
            return join_fields(fit_fields(fields, width))
        return _add_bar(share, fields, width, ascii_only=ascii_only)

    def line_below(self, lines: int, *, now: float, width: int) -> Line:
        """Return the progress of a list that is still read while its first pairs are captured."""
        self._lines.observe(lines, now)
        read = f"{plural(lines, 'line', number=number)} of the list read, more to come"
        return join_fields(fit_fields([Field(read), Field(format_speed(self._lines.per_second), 1)], width))
