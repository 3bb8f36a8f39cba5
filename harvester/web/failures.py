"""The page and the CSV of rejected and expired pairs. Pure functions; a page takes at most 100 KB."""

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup

from harvester.books import Books
from harvester.errors import format_cause
from harvester.formatting import iso_time, number, safe_text
from harvester.ledger import FailedPair
from harvester.web.document import render_document, take_whole
from harvester.web.searches import HOME

MAX_PAIRS = 100
"""How many pairs are on a page."""

MAX_GROUPS = 50
COLUMNS = ("workspace", "campaign_id", "send_id", "outcome", "reason", "detail", "ended_at")


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """How many pairs failed for one reason; ``reason`` is None for those that expired."""

    outcome: str
    reason: str | None
    pairs: int

    @property
    def command(self) -> str:
        """Return the command that requests these pairs again."""
        reason = [] if self.reason is None else ["--reason", self.reason]
        return shlex.join(["harvester", "requeue", "--outcome", self.outcome, *reason])

    @property
    def query(self) -> dict[str, str]:
        """Return the query of its first page."""
        return {"outcome": self.outcome} | ({} if self.reason is None else {"reason": self.reason})


def list_groups(books: Books) -> list[FailedGroup]:
    """Return the groups of failed pairs, the largest first."""
    groups = [FailedGroup("rejected", reason, count) for reason, count in books.rejected.items()]
    groups += [FailedGroup("expired", None, books.expired)] if books.expired else []
    return sorted(groups, key=lambda each: -each.pairs)


def render_failures(
    groups: Sequence[FailedGroup], chosen: FailedGroup | None, page: Sequence[FailedPair] | None
) -> str:
    """Return how many pairs failed by reason, and of the chosen group a page of pairs.

    ``page`` has one pair more than is shown if there is a next page.
    """
    content = HOME + Markup("<h1>Rejected and expired pairs</h1>")
    content += _groups(groups) if groups else Markup("<p>None.</p>")
    if chosen is not None and page is not None:
        content += _pairs(chosen, page)
    return render_document("Rejected and expired pairs", content)


def _groups(groups: Sequence[FailedGroup]) -> Markup:
    rows = (
        Markup('<tr><td><a href="{}">{}</a></td><td>{}</td><td><code>{}</code></td></tr>').format(
            _link(each), _name(each), number(each.pairs), safe_text(each.command)
        )
        for each in groups[:MAX_GROUPS]
    )
    return Markup(
        '<section class="rejections"><table><thead><tr><th scope="col">outcome</th><th scope="col">pairs</th>'
        '<th scope="col">to request them again, once the cause is corrected</th></tr></thead>'
        '<tbody>{}</tbody></table><p><a href="/rejections.csv">All as CSV</a>, which is also a list of pairs for '
        "<code>harvester remove</code>.</p></section>"
    ).format(Markup("").join(rows))


def _pairs(chosen: FailedGroup, page: Sequence[FailedPair]) -> Markup:
    rows = take_whole(_row(each) for each in page[:MAX_PAIRS])
    following = Markup("")
    if len(page) > len(rows):
        link = _link(chosen, after=page[len(rows) - 1].order)
        following = Markup('<p><a href="{}">Next page</a></p>').format(link)
    heads = ("campaign", "send", "workspace", "reason", "Braze's response", "when")
    return Markup(
        '<section class="rejections"><h2>{}</h2><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}</section>'
    ).format(
        _name(chosen),
        Markup("").join(Markup('<th scope="col">{}</th>').format(word) for word in heads),
        Markup("").join(rows),
        following,
    )


def _row(each: FailedPair) -> Markup:
    return Markup(
        '<tr><td><code>{}</code></td><td><a href="/sends?{}"><code>{}</code></a></td><td>{}</td><td>{}</td><td>{}</td>'
        "<td>{}</td></tr>"
    ).format(
        safe_text(each.pair.campaign_id),
        urlencode({"q": each.pair.send_id, "campaign_id": each.pair.campaign_id}, errors="replace"),
        safe_text(each.pair.send_id),
        safe_text(each.pair.workspace),
        safe_text(format_cause(each.reason)),
        safe_text(each.detail),
        "" if each.ended_at is None else iso_time(each.ended_at),
    )


def _name(group: FailedGroup) -> str:
    return group.outcome if group.reason is None else f"{group.outcome}: {safe_text(format_cause(group.reason))}"


def _link(group: FailedGroup, *, after: int | None = None) -> str:
    return "/rejections?" + urlencode(group.query | ({} if after is None else {"after": str(after)}), errors="replace")


def encode_csv(pairs: Iterable[FailedPair], *, header: bool = False) -> bytes:
    """Return pairs as lines of CSV. Ids are unchanged, so that the file can be used as a list."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for each in pairs:
        pair = each.pair
        ended_at = "" if each.ended_at is None else iso_time(each.ended_at)
        identity = (pair.workspace, pair.campaign_id, pair.send_id)
        writer.writerow((*identity, each.outcome, each.reason, _plain(each.detail), ended_at))
    return text.getvalue().encode("utf-8", "replace")


def _plain(detail: str) -> str:
    """Return foreign text that no spreadsheet takes for a formula."""
    text = safe_text(detail)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
