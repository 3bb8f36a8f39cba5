"""The sections of the status page: pure functions from values to markup."""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from markupsafe import Markup

from harvester.books import Books
from harvester.condition import HOLD_DESCRIPTIONS
from harvester.errors import format_cause
from harvester.formatting import ago, day_and_time, iso_time, number, safe_text, time_of_day, volume
from harvester.ledger import Rejection
from harvester.monitor.snapshot import ReplicasState, Snapshot, StoreState, TriggerState, WorkspaceState
from harvester.web import pictures

MAX_LINES = 12
"""How many alerts or problems are listed; the page names the other alerts by their number."""


def render_overview(snapshot: Snapshot) -> Markup:
    """Show in a line for each workspace what it does, or waits for."""
    lines = (
        Markup('<li class="{}"><b>{}</b> {}</li>').format(
            "held" if each.hold_cause else "active", each.name, describe_activity(each, snapshot.taken_at)
        )
        for each in snapshot.workspaces
    )
    return Markup('<ul class="doing">{}</ul>').format(Markup("").join(lines))


def describe_activity(each: WorkspaceState, now: float) -> str:
    """Return in words what a workspace does, or waits for."""
    if each.replica is not None:
        return f"is served by {each.replica}"
    if each.hold_cause is not None:
        until = f" until {time_of_day(each.hold_until)} ({ago(each.hold_until, now)})" if each.hold_until > now else ""
        return f"waits{until} for {HOLD_DESCRIPTIONS.get(each.hold_cause, safe_text(each.hold_cause))}"
    if not any(each.readings.get(state) for state in ("due", "leased")):
        return "has no readings due"
    pace = f"{each.pace:.1f}" if each.pace < 1000 else number(each.pace)
    return f"sends up to {pace} requests per second"


def render_workspace(each: WorkspaceState, now: float) -> Markup:
    """Show one workspace: figures, quota, deadlines, requests and responses."""
    nearest = ago(each.nearest_deadline, now) if each.nearest_deadline is not None else "none"
    figures = [
        ("at risk", number(each.at_risk), each.at_risk > 0),
        ("expired", number(each.expired), each.expired > 0),
        ("nearest deadline", nearest, False),
        ("last capture", ago(min(each.last_captured_at, now), now) if each.last_captured_at else "none", False),
    ]
    figures += [(f"readings {state}", number(count), False) for state, count in each.readings.items()]
    halted = ""
    if each.halt_reason is not None and each.halted_since is not None:
        halted = Markup(
            '<p class="bad">Halted since {}, {}. Until the cause is corrected, only probes are sent.</p>'
        ).format(day_and_time(each.halted_since), ago(each.halted_since, now))
    return Markup(
        '<section class="workspace"><h2><a href="/?workspace={link}">{name}</a></h2>{halted}{figures}'
        '<div class="pictures"><figure>{quota}</figure><figure>{deadlines}</figure></div>'
        '<p class="counts">{requests}{responses}</p></section>'
    ).format(
        link=quote(each.name, safe=""),
        name=each.name,
        halted=halted,
        figures=_render_figures(figures),
        quota=_render_quota(each, now),
        deadlines=pictures.draw_deadlines(each.deadlines),
        requests=_render_counts("requests", each.requests),
        responses=_render_counts("responses", each.responses),
    )


def _render_quota(each: WorkspaceState, now: float) -> Markup:
    window = each.window
    if not window.is_current(now):
        unknown = "Unknown until the first response."
        if each.replica is not None:
            unknown = "Known to the replica that serves the workspace."
        elif window.limit:
            unknown = f"Unknown: no request since the window reset, {ago(window.resets_at, now)}."
        return Markup('<figcaption>Quota of this window</figcaption><p class="unknown">{}</p>').format(unknown)
    legend = (
        ("ours", "this process", window.ours),
        ("others", "others", window.others),
        ("left", "left", window.remaining),
        ("reserve", "reserve", window.reserve),
    )
    keys = (Markup('<li class="{}">{} <b>{}</b></li>').format(kind, word, number(n)) for kind, word, n in legend)
    return Markup(
        "<figcaption>Quota of this window, {limit} requests</figcaption>{picture}"
        '<p class="axis"><span>{began}</span><span>resets {resets}, {when}</span></p>'
        '<ul class="legend">{keys}<li class="plan">plan</li></ul>'
    ).format(
        limit=number(window.limit),
        picture=pictures.draw_quota(window, now),
        began=time_of_day(window.began_at)[:5],
        resets=time_of_day(window.resets_at),
        when=ago(window.resets_at, now),
        keys=Markup("").join(keys),
    )


def render_books(totals: Books) -> Markup:
    """Show the books as an equation."""
    sums = {
        "captured": sum(totals.captured.values()),
        "rejected": sum(totals.rejected.values()),
        "expired": totals.expired,
        "pending": totals.pending,
    }
    parts: dict[str, Mapping[str, int]] = {
        "captured": {verdict.value: count for verdict, count in totals.captured.items()},
        "rejected": totals.rejected,
    }
    terms = (
        Markup('<li class="{kind}"><b>{sum}</b> {kind}<small>{parts}</small></li>').format(
            kind=kind,
            sum=number(count),
            parts=", ".join(f"{safe_text(format_cause(name))} {number(n)}" for name, n in parts.get(kind, {}).items()),
        )
        for kind, count in sums.items()
    )
    status = Markup('<span class="{}">{}</span>').format(
        *(("good", "balanced") if totals.balanced else ("bad", "not balanced"))
    )
    return Markup(
        '<section class="books"><h2>Books {status}</h2><ul><li class="accepted"><b>{sum}</b> accepted</li>{terms}</ul>'
        "<p>A pair is pending until its last reading is done.</p></section>"
    ).format(status=status, sum=number(totals.accepted), terms=Markup("").join(terms))


def render_triggers(every: Sequence[TriggerState]) -> Markup:
    """Show whether each queue is connected, and the outcomes of its messages."""
    lines = (
        Markup('<li><b>{}</b> {} <span class="{}">{}</span>{}<small>{}</small></li>').format(
            safe_text(each.name),
            safe_text(each.kind),
            "good" if each.connected else "bad",
            "connected" if each.connected else "not connected",
            Markup("<em>{}</em>").format(safe_text(each.last_error)) if each.last_error else "",
            " · ".join(f"{safe_text(format_cause(name))} {number(count)}" for name, count in each.messages.items()),
        )
        for each in every
    )
    listed = (
        Markup("<ul>{}</ul>").format(Markup("").join(lines)) if every else Markup("<p>No trigger is configured.</p>")
    )
    return Markup('<section class="triggers"><h2>Triggers</h2>{}</section>').format(listed)


def render_store(where: StoreState) -> Markup:
    """Show where parts are stored, and how much waits to be stored."""
    kind, word = ("bad", "unavailable") if where.problem else ("good", "available")
    place, problems = safe_text(where.place), [where.problem] if where.problem else []
    if where.places:
        place = f"{number(len(where.places))} places, {number(where.unavailable)} unavailable"
        problems = [each.problem for each in where.places[:MAX_LINES] if each.problem]
    status = Markup('<span class="{}">{}</span>').format(kind, word)
    problem = Markup("").join(Markup("<p><em>{}</em></p>").format(safe_text(each)) for each in problems)
    figures = [(f"batches {state}", number(count), state == "conflict") for state, count in where.batches.items()]
    figures += [
        ("waiting to be stored", volume(where.sealed_bytes), False),
        ("parts", number(where.parts), False),
        ("rows", number(where.rows), False),
        ("written", volume(where.part_bytes), False),
    ]
    return Markup('<section class="store"><h2>Store {}</h2><p>{}</p>{}{}</section>').format(
        status, place, problem, _render_figures(figures)
    )


def render_replicas(replicas: ReplicasState) -> Markup:
    """Show how many workspaces are assigned to each of several replicas; nothing for a service that is alone."""
    if len(replicas.assigned) < 2:
        return Markup("")
    figures = [
        (f"{name} (this one)" if name == replicas.own else name, number(count), False)
        for name, count in replicas.rank_assigned()[:MAX_LINES]
    ]
    if more := len(replicas.assigned) - len(figures):
        figures.append(("other replicas", number(more), False))
    if replicas.unserved:
        figures.append(("unserved", number(len(replicas.unserved)), True))
    names = ", ".join(safe_text(each) for each in replicas.unserved[:MAX_LINES])
    unserved = f"Readings have been due for two minutes, but no replica requests them: {names}" if names else ""
    return Markup('<section class="replicas"><h2>Workspaces of each replica</h2>{}<p>{}</p></section>').format(
        _render_figures(figures), unserved
    )


def render_rejections(latest: Sequence[Rejection], now: float) -> Markup:
    """List the latest rejected pairs."""
    all_failed = Markup('<a href="/rejections">All rejected and expired pairs</a>')
    if not latest:
        return Markup('<section class="rejections"><h2>Latest rejections</h2><p>None. {}</p></section>').format(
            all_failed
        )
    rows = (
        Markup(
            "<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td>{}</td>"
            '<td>{}</td><td><time datetime="{}">{}</time></td></tr>'
        ).format(
            safe_text(each.pair.campaign_id),
            safe_text(each.pair.send_id),
            safe_text(each.pair.workspace),
            safe_text(format_cause(each.reason)),
            safe_text(each.detail),
            iso_time(each.ended_at),
            ago(min(each.ended_at, now), now),
        )
        for each in latest
    )
    heads = ("campaign", "send", "workspace", "reason", "Braze's response", "when")
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(word) for word in heads)
    return Markup(
        '<section class="rejections"><h2>Latest rejections</h2>'
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table><p>{}</p></section>"
    ).format(head, Markup("").join(rows), all_failed)


def _render_figures(figures: Iterable[tuple[str, str, bool]]) -> Markup:
    """Show figures with their names; the third value marks those that need attention."""
    each = (
        Markup("<div{}><dt>{}</dt><dd>{}</dd></div>").format(
            Markup(' class="bad"') if urgent else "", safe_text(name), figure
        )
        for name, figure, urgent in figures
    )
    return Markup('<dl class="figures">{}</dl>').format(Markup("").join(each))


def _render_counts(what: str, counts: Mapping[str, int]) -> Markup:
    """Show counts by name in one line, the largest first."""
    if not counts:
        return Markup("")
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    line = " · ".join(f"{safe_text(format_cause(name))}: {number(n)}" for name, n in ranked)
    return Markup("<span><b>{}</b> {}</span>").format(what, line)
