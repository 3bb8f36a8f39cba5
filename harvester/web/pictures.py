"""The two pictures of the status page as inline SVG: how the quota is spent, and the days of the deadlines.

Pure functions from values to markup. A picture is stretched to the available space, so it contains only shapes. Labels
are text beside it, which stays readable on a phone and in a screen reader.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from harvester.formatting import compact, number, quantity
from harvester.ledger import DayOfDeadlines
from harvester.model import DAY_SECONDS
from harvester.monitor.activity import QUARTER_SECONDS, QUARTERS
from harvester.monitor.snapshot import Window

WIDTH, HEIGHT = 600.0, 100.0
_MIN_BAR_HEIGHT = 3.0

HATCHES = Markup(
    '<svg class="hatches" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6" class="hatch"/></pattern></defs></svg>'
)
"""The hatch pattern, which all pictures of a page share."""


def draw_quota(window: Window, now: float) -> Markup:
    """Draw a window from left to right, with the spent requests at the top and those that are left at the bottom."""
    length = max(window.resets_at - window.began_at, 1.0)

    def x(at: float) -> float:
        return round(min(max((at - window.began_at) / length, 0.0), 1.0) * WIDTH, 1)

    def y(requests: float) -> float:
        return round(min(requests / window.limit, 1.0) * HEIGHT, 1)

    times = [x(each.at) for each in window.spent]
    others = list(zip(times, (y(each.others) for each in window.spent), strict=True))
    both = list(zip(times, (y(each.others + each.ours) for each in window.spent), strict=True))
    top = [(times[0], 0.0), (times[-1], 0.0)] if times else []
    floor = y(window.limit - window.reserve)
    label = (
        f"Quota of this window: of {number(window.limit)} requests this process sent {number(window.ours)}, "
        f"others {number(window.others)}; {number(window.remaining)} are left, "
        f"and {number(window.reserve)} of them are kept for live sending."
    )
    left = [*both, (times[-1], HEIGHT), (times[0], HEIGHT)] if times else []
    line = f"M{both[0][0]} {both[0][1]}L{WIDTH} {floor}" if both else ""
    return Markup(
        '<svg class="quota" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{label}">'
        '<path class="left" d="{left}"/><rect class="reserve" y="{floor}" width="{w}" height="{reserve}"/>'
        '<path class="others" d="{others}"/><path class="ours" d="{ours}"/>'
        '<path class="floor" d="M0 {floor}H{w}"/><path class="line" d="{line}"/>'
        '<path class="now" d="M{now} 0V{h}"/></svg>'
    ).format(
        w=f"{WIDTH:g}",
        h=f"{HEIGHT:g}",
        label=label,
        floor=floor,
        reserve=round(HEIGHT - floor, 2),
        line=line,
        now=x(now),
        left=_draw_area(left),
        others=_draw_area([*others, *reversed(top)]),
        ours=_draw_area([*both, *reversed(others)]),
    )


def _draw_area(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z" if points else ""


def draw_day(series: Sequence[tuple[float, int]], now: float, what: str) -> Markup:
    """Draw the counts of the last 24 hours by quarter of an hour, with labels for time and number."""
    most = max((count for _, count in series), default=0)
    end = (now // QUARTER_SECONDS + 1) * QUARTER_SECONDS  # the present quarter is drawn whole
    bars = (
        Markup('<rect class="bar" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>').format(
            x=round(WIDTH * (1 - (end - at) / DAY_SECONDS), 1),
            y=round(HEIGHT * (1 - count / most), 1),
            width=round(WIDTH / QUARTERS, 1),
            height=round(HEIGHT * count / most, 1),
        )
        for at, count in series
        if count
    )
    label = f"{what}s by quarter of an hour in the last 24 hours; at most {number(most)}"
    return Markup(
        '<svg class="day" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{label}">{bars}</svg>'
        '<p class="axis"><span>24 hours ago</span><span>at most {most} in 15 minutes</span><span>now</span></p>'
    ).format(w=f"{WIDTH:g}", h=f"{HEIGHT:g}", label=label, bars=Markup("").join(bars), most=number(most))


def draw_deadlines(days: Sequence[DayOfDeadlines]) -> Markup:
    """Draw a table with a column and a bar for each day. Pairs at risk have their own colour, row and mark."""
    most = max((each.pairs for each in days), default=0)
    at_risk = any(each.at_risk for each in days)
    return Markup(
        '<table class="days"><caption>{caption}</caption>'
        '<tr class="bars"><td></td>{bars}</tr><tr><th scope="row">pairs</th>{counts}</tr>{risk}'
        '<tr><th scope="row">day</th>{names}</tr></table>'
    ).format(
        caption=f"{quantity(sum(each.pairs for each in days), 'deadline')} in {quantity(len(days), 'day')}, UTC",
        bars=_render_cells("<td>{}</td>", (_draw_bar(each, most) for each in days)),
        counts=_render_cells("<td>{}</td>", (compact(each.pairs) if each.pairs else "·" for each in days)),
        risk=Markup('<tr class="risk"><th scope="row">at risk</th>{}</tr>').format(
            _render_cells("<td>{}</td>", (_format_risk(each) for each in days))
        )
        if at_risk
        else "",
        names=_render_cells('<th scope="col">{}</th>', (_render_day(each.at) for each in days)),
    )


def _format_risk(day: DayOfDeadlines) -> str:
    """Mark a day with pairs at risk, with their number if other pairs are safe."""
    if not day.at_risk:
        return ""
    return "▲" if day.at_risk == day.pairs else f"▲{compact(day.at_risk)}"


def _render_cells(cell: str, contents: Iterable[object]) -> Markup:
    return Markup("").join(Markup(cell).format(content) for content in contents)  # noqa: S704 - a constant


def _draw_bar(each: DayOfDeadlines, most: int) -> Markup:
    """Draw the pairs of one day, those at risk at the bottom. Few pairs still have a visible bar."""

    def height(pairs: int) -> float:
        return round(max(pairs / most * HEIGHT, _MIN_BAR_HEIGHT), 1) if pairs else 0.0

    risk = height(each.at_risk)
    rest = max(height(each.pairs), risk + (_MIN_BAR_HEIGHT if each.pairs > each.at_risk else 0.0))
    shapes = Markup('<rect class="bar" y="{y}" width="10" height="{h}"/>').format(y=HEIGHT - rest, h=rest)
    if each.at_risk:
        shapes += Markup('<rect class="risk" y="{y}" width="10" height="{h}"/>').format(y=HEIGHT - risk, h=risk)
    return Markup('<svg viewBox="0 0 10 {h}" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>').format(
        h=f"{HEIGHT:g}", shapes=shapes
    )


def _render_day(at: float) -> Markup:
    day = datetime.fromtimestamp(at, UTC)
    return Markup("<span>{}</span>{}").format(f"{day:%a}"[:2], day.day)
