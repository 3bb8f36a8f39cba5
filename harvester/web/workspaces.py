"""The parts of the status page for many workspaces: a line for each, and a page for one. Pure functions."""

from collections.abc import Sequence
from urllib.parse import quote

from markupsafe import Markup

from harvester.formatting import ago, day_and_time, number, quantity, safe_text
from harvester.ledger import DueCount
from harvester.monitor.snapshot import Snapshot, WorkspaceState
from harvester.web import pictures, sections
from harvester.web.document import take_whole

MAX_IN_FULL = 3
"""Up to this number of workspaces, the page shows each in full; of more, a line for each."""

_HEADS = ("workspace", "state", "due", "at risk", "expired", "nearest deadline", "last capture")


def render_table(snapshot: Snapshot, pattern: str) -> Markup:
    """Show a line for each workspace whose name contains ``pattern``: those with problems first, then by deadline."""
    found = [each for each in snapshot.rank_workspaces() if pattern.lower() in each.name.lower()]
    rows = take_whole(_render_row(each, snapshot.taken_at) for each in found)
    rest = ""
    if omitted := len(found) - len(rows):
        rest = f"{quantity(omitted, 'more workspace')}, less urgent than these. Use the filter to see them."
    elif not found:
        rest = "No workspace matches the filter."
    return Markup(
        '<section class="workspaces"><h2>{count}</h2><form><label>Filter by name '
        '<input name="filter" value="{pattern}" maxlength="64"></label> <button>Filter</button></form>'
        "<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table><p>{rest}</p></section>"
    ).format(
        count=quantity(len(snapshot.workspaces), "workspace"),
        pattern=safe_text(pattern),
        heads=Markup("").join(Markup('<th scope="col">{}</th>').format(each) for each in _HEADS),
        rows=Markup("").join(rows),
        rest=rest,
    )


def _render_row(each: WorkspaceState, now: float) -> Markup:
    return Markup(
        '<tr><th scope="row"><a href="/?workspace={link}">{name}</a></th><td class="{kind}">{state}</td><td>{due}</td>'
        '<td class="{risk}">{at_risk}</td><td>{expired}</td><td>{deadline}</td><td>{captured}</td></tr>'
    ).format(
        link=quote(each.name, safe=""),
        name=each.name,
        kind="held" if each.hold_cause else "active",
        state=sections.describe_activity(each, now),
        due=number(each.due),
        risk="bad" if each.at_risk else "",
        at_risk=number(each.at_risk),
        expired=number(each.expired),
        deadline="none" if each.nearest_deadline is None else ago(each.nearest_deadline, now),
        captured=ago(min(each.last_captured_at, now), now) if each.last_captured_at else "none",
    )


def render_one(each: WorkspaceState, planned: Sequence[DueCount], now: float) -> Markup:
    """Show one workspace in full: its state, its last day, and its next readings."""
    return Markup('<p><a href="/">All workspaces</a></p>{}{}{}').format(
        sections.render_workspace(each, now), _render_activity(each, now), _render_planned(planned, now)
    )


def _render_activity(each: WorkspaceState, now: float) -> Markup:
    if not each.activity:
        return Markup('<section><h2>Last 24 hours</h2><p class="unknown">No request since the start.</p></section>')
    figures = (
        Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(
            quantity(sum(count for _, count in series), name), pictures.draw_day(series, now, name)
        )
        for name, series in (
            ("request", [(quarter.at, quarter.requests) for quarter in each.activity]),
            ("capture", [(quarter.at, quarter.captures) for quarter in each.activity]),
            ("refusal", [(quarter.at, quarter.refusals) for quarter in each.activity]),
        )
    )
    return Markup('<section><h2>Last 24 hours</h2><div class="charts">{}</div></section>').format(
        Markup("").join(figures)
    )


def _render_planned(planned: Sequence[DueCount], now: float) -> Markup:
    if not planned:
        return Markup("<section><h2>Next readings</h2><p>No reading is planned.</p></section>")
    rows = (
        Markup("<tr><td>{}</td><td>{}</td><td>{}</td></tr>").format(
            *(("now", "") if each.due_at <= now else (day_and_time(each.due_at), ago(each.due_at, now))),
            quantity(each.readings, "reading"),
        )
        for each in planned
    )
    return Markup('<section class="planned"><h2>Next readings</h2><table>{}</table></section>').format(
        Markup("").join(rows)
    )
