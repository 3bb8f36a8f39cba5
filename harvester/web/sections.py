"""What stands below the first lines of the status page, section by section: pure functions from values to markup."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from harvester.errors import cause_text
from harvester.formatting import ago, clock, machine, moment, number, shown, volume
from harvester.health import HOLDS
from harvester.ledger.outlook import Rejection
from harvester.model import Books
from harvester.monitor.snapshot import Snapshot, Store, Trigger, Window, WorkspaceNow
from harvester.web import pictures


def overview(snapshot: Snapshot) -> Markup:
    """Say of each workspace in one line what it is doing now, or what it waits for and until when."""
    lines = (
        Markup('<li class="{}"><b>{}</b> {}</li>').format(
            "held" if each.held_because else "going", each.name, _doing(each, snapshot.taken_at)
        )
        for each in snapshot.workspaces
    )
    return Markup('<ul class="doing">{}</ul>').format(Markup("").join(lines))


def _doing(each: WorkspaceNow, now: float) -> str:
    if each.held_because is not None:
        waits = f"waits for {HOLDS.get(each.held_because, shown(each.held_because))}"
        return waits if each.held_until <= now else f"{waits}, {ago(each.held_until, now)} ({clock(each.held_until)})"
    if not any(each.readings.get(state) for state in ("due", "leased")):
        return "has nothing due"
    pace = f"{each.pace:.1f}" if each.pace < 1000 else number(each.pace)
    return f"sends up to {pace} calls a second"


def workspace(each: WorkspaceNow, now: float) -> Markup:
    """Show one workspace: figures, the budget of this window, the deadlines to come, what was sent and answered."""
    nearest = ago(each.nearest_deadline, now) if each.nearest_deadline is not None else "none"
    figures = [
        ("at risk", number(each.at_risk), each.at_risk > 0),
        ("expired", number(each.expired), each.expired > 0),
        ("nearest deadline", nearest, False),
        ("last capture", ago(min(each.last_captured_at, now), now) if each.last_captured_at else "none known", False),
    ]
    figures += [(f"readings {state}", number(count), False) for state, count in each.readings.items()]
    halted = ""
    if each.halted_because is not None and each.halted_since is not None:
        halted = Markup(
            '<p class="bad">Halted since {}, {}. No call but a probe leaves until that is mended.</p>'
        ).format(moment(each.halted_since), ago(each.halted_since, now))
    return Markup(
        '<section class="workspace"><h2>{name}</h2>{halted}{figures}'
        '<div class="pictures"><figure>{budget}</figure><figure>{deadlines}</figure></div>'
        '<p class="counts">{calls}{answers}</p></section>'
    ).format(
        name=each.name, halted=halted, figures=_figures(figures), budget=_budget(each.window, now),
        deadlines=pictures.deadlines(each.deadlines), calls=_counts("calls", each.calls),
        answers=_counts("answers", each.answers),
    )  # fmt: skip


def _budget(window: Window, now: float) -> Markup:
    if not window.lasts(now):
        silence = "No answer has told of it yet."
        if window.limit:
            silence = f"Nothing was asked since it reset, {ago(window.resets_at, now)}."
        return Markup('<figcaption>Budget of this window</figcaption><p class="unknown">{}</p>').format(silence)
    legend = (("ours", "ours", window.ours), ("others", "others", window.others),
              ("left", "left", window.remaining), ("reserve", "of which reserve", window.reserve))  # fmt: skip
    keys = (Markup('<li class="{}">{} <b>{}</b></li>').format(kind, word, number(n)) for kind, word, n in legend)
    return Markup(
        "<figcaption>Budget of this window, {limit} calls</figcaption>{picture}"
        '<p class="axis"><span>{began}</span><span>resets {resets}, {when}</span></p>'
        '<ul class="legend">{keys}<li class="plan">plan</li></ul>'
    ).format(
        limit=number(window.limit), picture=pictures.budget(window, now), began=clock(window.began_at)[:5],
        resets=clock(window.resets_at), when=ago(window.resets_at, now), keys=Markup("").join(keys),
    )  # fmt: skip


def books(balance: Books) -> Markup:
    """Show the balance as the equation that it is."""
    sums = {
        "captured": sum(balance.captured.values()), "rejected": sum(balance.rejected.values()),
        "expired": balance.expired, "pending": balance.pending,
    }  # fmt: skip
    parts: dict[str, Mapping[str, int]] = {
        "captured": {verdict.value: count for verdict, count in balance.captured.items()},
        "rejected": balance.rejected,
    }
    terms = (
        Markup('<li class="{kind}"><b>{sum}</b> {kind}<small>{parts}</small></li>').format(
            kind=kind,
            sum=number(count),
            parts=", ".join(f"{shown(cause_text(name))} {number(n)}" for name, n in parts.get(kind, {}).items()),
        )
        for kind, count in sums.items()
    )
    verdict = Markup('<span class="{}">{}</span>').format(
        *(("good", "they balance") if balance.balanced else ("bad", "they do not balance"))
    )
    return Markup(
        '<section class="books"><h2>Books {verdict}</h2><ul><li class="accepted"><b>{sum}</b> accepted</li>{terms}</ul>'
        "<p>A pair is pending, though it was read before, until its last reading is done.</p></section>"
    ).format(verdict=verdict, sum=number(balance.accepted), terms=Markup("").join(terms))


def triggers(every: Sequence[Trigger]) -> Markup:
    """Show each queue: is it connected, and what became of its messages."""
    lines = (
        Markup('<li><b>{}</b> {} <span class="{}">{}</span>{}<small>{}</small></li>').format(
            shown(each.name), shown(each.kind), "good" if each.connected else "bad",
            "connected" if each.connected else "not connected",
            Markup("<em>{}</em>").format(shown(each.last_error)) if each.last_error else "",
            " · ".join(f"{shown(outcome)} {number(count)}" for outcome, count in each.messages.items()),
        )
        for each in every
    )  # fmt: skip
    listed = Markup("<ul>{}</ul>").format(Markup("").join(lines)) if every else Markup("<p>None is configured.</p>")
    return Markup('<section class="triggers"><h2>Triggers</h2>{}</section>').format(listed)


def store(where: Store) -> Markup:
    """Show where parts go, and what waits to go there."""
    told = Markup('<span class="bad">away</span>') if where.problem else Markup('<span class="good">takes parts</span>')
    problem = Markup("<p><em>{}</em></p>").format(shown(where.problem)) if where.problem else ""
    figures = [(f"batches {state}", number(count), state == "conflict") for state, count in where.batches.items()]
    figures += [
        ("waiting to be stored", volume(where.sealed_bytes), False),
        ("parts", number(where.parts), False),
        ("rows", number(where.rows), False),
        ("written", volume(where.part_bytes), False),
    ]
    return Markup('<section class="store"><h2>Store {}</h2><p>{}</p>{}{}</section>').format(
        told, shown(where.place), problem, _figures(figures)
    )


def rejections(latest: Sequence[Rejection], now: float) -> Markup:
    """List the pairs that were refused last, with what was said of them."""
    if not latest:
        return Markup('<section class="rejections"><h2>Last rejects</h2><p>None.</p></section>')
    rows = (
        Markup(
            '<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td>{}</td>'
            '<td>{}</td><td><time datetime="{}">{}</time></td></tr>'
        ).format(
            shown(each.pair.campaign_id), shown(each.pair.send_id), shown(each.pair.workspace),
            shown(cause_text(each.reason)), shown(each.detail), machine(each.ended_at),
            ago(min(each.ended_at, now), now),
        )
        for each in latest
    )  # fmt: skip
    heads = ("campaign", "send", "workspace", "reason", "what Braze said", "when")
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(word) for word in heads)
    return Markup(
        '<section class="rejections"><h2>Last rejects</h2>'
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></section>"
    ).format(head, Markup("").join(rows))


def _figures(figures: Iterable[tuple[str, str, bool]]) -> Markup:
    """Show figures with their names; the third value marks those that must not be overlooked."""
    each = (
        Markup("<div{}><dt>{}</dt><dd>{}</dd></div>").format(
            Markup(' class="bad"') if grave else "", shown(name), figure
        )
        for name, figure, grave in figures
    )
    return Markup('<dl class="figures">{}</dl>').format(Markup("").join(each))


def _counts(what: str, counts: Mapping[str, int]) -> Markup:
    """List counts by name in one line, the largest first."""
    if not counts:
        return Markup("")
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    said = " · ".join(f"{shown(cause_text(name))} {number(n)}" for name, n in ranked)
    return Markup("<span><b>{}</b> {}</span>").format(what, said)
