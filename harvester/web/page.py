"""Builds the status page: whether the service is healthy, what it waits for, and which deadlines are near.

A pure function from the health to one document. ``Markup`` escapes text from outside.
"""

from collections.abc import Sequence

from markupsafe import Markup

from harvester.formatting import ago, day_and_time, duration, iso_time, quantity, safe_text, time_of_day
from harvester.ledger import DueCount
from harvester.monitor.health import Health
from harvester.monitor.snapshot import Snapshot
from harvester.web import sections, workspaces
from harvester.web.document import render_document
from harvester.web.searches import render_search_form
from harvester.web.sections import MAX_LINES


def render_page(health: Health, *, now: float, pattern: str = "") -> str:
    """Return the document. Of many workspaces it lists those whose name contains ``pattern``."""
    snapshot = health.snapshot
    return _render(health, Markup("") if snapshot is None else _render_body(snapshot, pattern), now)


def render_workspace_page(health: Health, name: str, planned: Sequence[DueCount], *, now: float) -> str:
    """Return the document for one workspace, with its next readings."""
    snapshot = health.snapshot
    content = Markup('<p><a href="/">All workspaces</a></p>')
    if snapshot is not None:
        each = next((each for each in snapshot.workspaces if each.name == name), None)
        if each is None:
            content += Markup("<p>No workspace {} is configured.</p>").format(safe_text(name))
        else:
            content = workspaces.render_one(each, planned, snapshot.taken_at)
    return _render(health, content, now)


def _render(health: Health, body: Markup, now: float) -> str:
    snapshot, alerts = health.snapshot, health.alerts()
    content = _render_header(snapshot, alerts, now) + body
    return render_document(
        "Not healthy" if alerts else "Healthy",
        content,
        version=snapshot.version if snapshot else "",
        healthy=not alerts,
        refreshes=True,
    )


def _render_header(snapshot: Snapshot | None, alerts: list[str], now: float) -> Markup:
    """Return whether the service is healthy, and what each workspace does."""
    taken_at = snapshot.taken_at if snapshot else now
    if alerts:
        headline = Markup('<h1>Not healthy</h1><ul class="alerts">{}</ul>').format(
            Markup("").join(Markup("<li>{}</li>").format(each[:1].upper() + each[1:]) for each in _limit(alerts))
        )
    else:
        assert snapshot is not None  # without one there is an alert
        headline = Markup("<h1>Healthy</h1><p>{}</p>").format(_describe_outlook(snapshot))
    return Markup(
        '<header class="{state}"><p class="brand"><b>harvester</b> <time datetime="{machine}">{clock}</time></p>'
        '<div aria-live="polite">{headline}</div>{overview}{search}</header>'
    ).format(
        state="unhealthy" if alerts else "healthy",
        machine=iso_time(taken_at),
        clock=time_of_day(taken_at),
        headline=headline,
        overview=sections.render_overview(snapshot) if snapshot and _shows_in_full(snapshot) else "",
        search=render_search_form(),
    )


def _limit(lines: list[str]) -> list[str]:
    """Return the first lines, and how many more there are."""
    more = len(lines) - MAX_LINES
    return lines if more <= 0 else [*lines[:MAX_LINES], f"{quantity(more, 'more alert')}; /metrics has all"]


def _describe_outlook(snapshot: Snapshot) -> str:
    """Return in a sentence or two what is pending, and the nearest deadline."""
    nearest = [each.nearest_deadline for each in snapshot.workspaces if each.nearest_deadline is not None]
    if not nearest:
        if snapshot.books is not None and not snapshot.books.accepted:
            return "The ledger has no sends yet. Add a list with harvester enqueue, or send a message to a trigger."
        return "Nothing is pending."
    when = f"The nearest deadline is {ago(min(nearest), snapshot.taken_at)} ({day_and_time(min(nearest))})."
    return _describe_pending(snapshot) + when


def _describe_pending(snapshot: Snapshot) -> str:
    """Return how many pairs were never read, and how many wait for their next reading."""
    totals = snapshot.books
    if totals is None:
        return ""
    waiting = totals.pending - totals.never_read
    parts = [f"{quantity(totals.never_read, 'pair')} not read yet"] if totals.never_read else []
    if waiting:
        due = totals.next_reading_at
        when = f", the first {ago(due, snapshot.taken_at)}" if due is not None and due > snapshot.taken_at else ""
        parts.append(f"{quantity(waiting, 'pair')} waiting for the next reading{when}")
    return "; ".join(parts) + "; none at risk. "


def _shows_in_full(snapshot: Snapshot) -> bool:
    return len(snapshot.workspaces) <= workspaces.MAX_IN_FULL


def _render_body(snapshot: Snapshot, pattern: str) -> Markup:
    blocks = []
    if _shows_in_full(snapshot):
        blocks += [sections.render_workspace(each, snapshot.taken_at) for each in snapshot.workspaces]
    if snapshot.books is not None:
        blocks.append(sections.render_books(snapshot.books))
    if not _shows_in_full(snapshot):
        blocks.append(workspaces.render_table(snapshot, pattern))
    triggers, store = sections.render_triggers(snapshot.triggers), sections.render_store(snapshot.store)
    blocks += [
        Markup('<div class="beside">{}{}</div>').format(triggers, store),
        sections.render_replicas(snapshot.replicas),
        sections.render_rejections(snapshot.rejections, snapshot.taken_at),
        Markup(
            '<footer>harvester {} · up {} · <a href="/readyz">readyz</a> · <a href="/metrics">metrics</a></footer>'
        ).format(snapshot.version, duration(snapshot.taken_at - snapshot.started_at)),
    ]
    return Markup("\n").join(blocks)
