"""Builds the status page: whether the service is healthy, what it waits for, and which deadlines are near.

A pure function from the health to one document, which contains its style and script. The content security policy allows
nothing else. ``Markup`` escapes text from outside.
"""

import base64
import hashlib
from importlib.resources import files

from markupsafe import Markup

from harvester.formatting import ago, day_and_time, duration, iso_time, quantity, time_of_day
from harvester.monitor.health import Health
from harvester.monitor.snapshot import Snapshot
from harvester.web import pictures, sections

_STYLE = files("harvester.web").joinpath("page.css").read_text(encoding="utf-8")
_SCRIPT = files("harvester.web").joinpath("page.js").read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page: its own style and script, requests to itself, and nothing else."""

_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E{}%3C/svg%3E"
_HEALTHY_ICON = _ICON.format("%3Ccircle cx='8' cy='8' r='6' fill='%232a7d5f'/%3E")
_UNHEALTHY_ICON = _ICON.format("%3Cpath d='M8 1l7 14H1z' fill='%23c8321f'/%3E")

_DOCUMENT = Markup("""<!doctype html>
<html lang="en" data-version="{version}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="{icon}">
<style>{style}</style>
<noscript><meta http-equiv="refresh" content="10"></noscript>
</head>
<body>
{hatches}
<p id="stale" role="alert" hidden></p>
<main>
{content}
</main>
<script>{script}</script>
</body>
</html>
""")


def render_page(health: Health, *, now: float) -> str:
    """Return the document."""
    snapshot, alerts = health.snapshot, health.alerts()
    content = _header(snapshot, alerts, now)
    if snapshot is not None:
        content += _body(snapshot)
    document = _DOCUMENT.format(
        version=snapshot.version if snapshot else "",
        title=f"{'Not healthy' if alerts else 'Healthy'} · harvester",
        icon=Markup(_UNHEALTHY_ICON if alerts else _HEALTHY_ICON),  # noqa: S704 - a constant
        style=Markup(_STYLE),  # noqa: S704 - our own file
        script=Markup(_SCRIPT),  # noqa: S704 - our own file
        hatches=pictures.HATCHES,
        content=content,
    )
    return str(document)


def _header(snapshot: Snapshot | None, alerts: list[str], now: float) -> Markup:
    """Return whether the service is healthy, and what each workspace does."""
    taken_at = snapshot.taken_at if snapshot else now
    if alerts:
        headline = Markup('<h1>Not healthy</h1><ul class="alerts">{}</ul>').format(
            Markup("").join(Markup("<li>{}</li>").format(each[:1].upper() + each[1:]) for each in alerts)
        )
    else:
        assert snapshot is not None  # without one there is an alert
        headline = Markup("<h1>Healthy</h1><p>{}</p>").format(_outlook(snapshot))
    return Markup(
        '<header class="{state}"><p class="brand"><b>harvester</b> <time datetime="{machine}">{clock}</time></p>'
        '<div aria-live="polite">{headline}</div>{overview}</header>'
    ).format(
        state="unhealthy" if alerts else "healthy",
        machine=iso_time(taken_at),
        clock=time_of_day(taken_at),
        headline=headline,
        overview=sections.overview(snapshot) if snapshot else "",
    )


def _outlook(snapshot: Snapshot) -> str:
    """Return in a sentence or two what is pending, and the nearest deadline."""
    nearest = [each.nearest_deadline for each in snapshot.workspaces if each.nearest_deadline is not None]
    if not nearest:
        return "Nothing is pending."
    when = f"The nearest deadline is {ago(min(nearest), snapshot.taken_at)}, {day_and_time(min(nearest))}."
    return _pending(snapshot) + when


def _pending(snapshot: Snapshot) -> str:
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


def _body(snapshot: Snapshot) -> Markup:
    blocks = [sections.workspace(each, snapshot.taken_at) for each in snapshot.workspaces]
    if snapshot.books is not None:
        blocks.append(sections.books(snapshot.books))
    triggers, store = sections.triggers(snapshot.triggers), sections.store(snapshot.store)
    blocks += [
        Markup('<div class="beside">{}{}</div>').format(triggers, store),
        sections.rejections(snapshot.rejections, snapshot.taken_at),
        Markup(
            '<footer>harvester {} · up {} · <a href="/readyz">readyz</a> · <a href="/metrics">metrics</a></footer>'
        ).format(snapshot.version, duration(snapshot.taken_at - snapshot.started_at)),
    ]
    return Markup("\n").join(blocks)
