"""The status page, for who is woken at three: is it well, what does it wait for, what runs out of time.

A pure function from a snapshot to one document that needs nothing else: its style and its few lines of script stand
in it, and the policy lets nothing but these two run. Text of strangers is escaped by the type it is put into.
"""

import base64
import hashlib
from importlib.resources import files

from markupsafe import Markup

from harvester.formatting import ago, clock, duration, machine, many, moment, shown
from harvester.monitor.snapshot import Snapshot
from harvester.web import pictures
from harvester.web.sections import books, overview, rejections, store, triggers, workspace

_STYLE = files("harvester.web").joinpath("page.css").read_text(encoding="utf-8")
_SCRIPT = files("harvester.web").joinpath("page.js").read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy under which the page works: its own style and script, itself, and nothing else."""

_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E{}%3C/svg%3E"
_WELL = _ICON.format("%3Ccircle cx='8' cy='8' r='6' fill='%232a7d5f'/%3E")
_ILL = _ICON.format("%3Cpath d='M8 1l7 14H1z' fill='%23c8321f'/%3E")

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


def page(snapshot: Snapshot | None, problem: str | None, *, now: float) -> str:
    """Give the document. ``problem`` is why there is no newer snapshot than this one, if there should be one."""
    alarms = [shown(problem)] if problem else []
    alarms += snapshot.alarms() if snapshot else []
    content = _head(snapshot, alarms, now)
    if snapshot is not None:
        content += _body(snapshot)
    document = _DOCUMENT.format(
        version=snapshot.version if snapshot else "",
        title=f"{'Not healthy' if alarms else 'Healthy'} · harvester",
        icon=Markup(_ILL if alarms else _WELL),  # noqa: S704 - our own, and its marks are part of it
        style=Markup(_STYLE),  # noqa: S704 - our own file
        script=Markup(_SCRIPT),  # noqa: S704 - our own file
        hatches=pictures.HATCHES,
        content=content,
    )
    return str(document)


def _head(snapshot: Snapshot | None, alarms: list[str], now: float) -> Markup:
    """Answer the first question first, and then what each workspace is doing."""
    seen_at = snapshot.taken_at if snapshot else now
    if alarms:
        said = Markup('<h1>Not healthy</h1><ul class="alarms">{}</ul>').format(
            Markup("").join(Markup("<li>{}</li>").format(each[:1].upper() + each[1:]) for each in alarms)
        )
    else:
        assert snapshot is not None  # or else there is a problem
        said = Markup("<h1>Healthy</h1><p>{}</p>").format(_calm(snapshot))
    return Markup(
        '<header class="{state}"><p class="brand"><b>harvester</b> <time datetime="{machine}">{clock}</time></p>'
        '<div aria-live="polite">{said}</div>{overview}</header>'
    ).format(
        state="ill" if alarms else "well", machine=machine(seen_at), clock=clock(seen_at), said=said,
        overview=overview(snapshot) if snapshot else "",
    )  # fmt: skip


def _calm(snapshot: Snapshot) -> str:
    """Say in a sentence or two why nobody need get up."""
    nearest = [each.nearest_deadline for each in snapshot.workspaces if each.nearest_deadline is not None]
    if not nearest:
        return "Nothing is pending."
    when = f"The nearest deadline is {ago(min(nearest), snapshot.taken_at)}, {moment(min(nearest))}."
    return _pending(snapshot) + when


def _pending(snapshot: Snapshot) -> str:
    """Tell pairs that were never read from those that wait for their next reading."""
    balance = snapshot.books
    if balance is None:
        return ""
    waiting = balance.pending - balance.never_read
    parts = [f"{many(balance.never_read, 'pair')} never read"] if balance.never_read else []
    if waiting:
        due = balance.next_reading_at
        when = f", the next {ago(due, snapshot.taken_at)}" if due is not None and due > snapshot.taken_at else ""
        parts.append(f"{many(waiting, 'pair')} read before and waiting for the next reading{when}")
    return "; ".join(parts) + "; none at risk. "


def _body(snapshot: Snapshot) -> Markup:
    sections = [workspace(each, snapshot.taken_at) for each in snapshot.workspaces]
    if snapshot.books is not None:
        sections.append(books(snapshot.books))
    sections += [
        Markup('<div class="beside">{}{}</div>').format(triggers(snapshot.triggers), store(snapshot.store)),
        rejections(snapshot.rejections, snapshot.taken_at),
        Markup(
            '<footer>harvester {} · up {} · <a href="/readyz">readyz</a> · <a href="/metrics">metrics</a></footer>'
        ).format(snapshot.version, duration(snapshot.taken_at - snapshot.started_at)),
    ]
    return Markup("\n").join(sections)
