"""The pages that search the ledger. Pure functions from what was found to documents of at most 100 KB."""

from collections.abc import Collection

from markupsafe import Markup

from harvester.commands.show import explain_unknown, list_facts
from harvester.formatting import safe_text
from harvester.ledger import SendHistory, SendSearch
from harvester.model import MAX_ID_CHARACTERS
from harvester.web.document import render_document, take_whole

MAX_SENDS = 10
"""How many pairs with one send id are shown."""

HOME = Markup('<p class="brand"><a href="/"><b>harvester</b></a></p>')


def render_search_form(send_id: str = "", campaign_id: str = "") -> Markup:
    """Return the form that finds a send."""
    return Markup(
        '<form action="/sends" role="search">'
        '<label>Send id <input name="q" value="{}" maxlength="{most}" required></label> '
        '<label>Campaign id <input name="campaign_id" value="{}" maxlength="{most}" placeholder="any"></label> '
        "<button>Find</button></form>"
    ).format(safe_text(send_id), safe_text(campaign_id), most=MAX_ID_CHARACTERS)


def render_sends(search: SendSearch | None, send_id: str, campaign_id: str, served: Collection[str]) -> str:
    """Return what became of a send, in the words of ``harvester show``; without a search only the form."""
    content = HOME + Markup("<h1>Sends</h1>") + render_search_form(send_id, campaign_id)
    if search is not None and search.sends:
        sections = take_whole([_render_send(each, search, served) for each in search.sends])
        content += Markup("").join(sections)
        if search.more or len(sections) < len(search.sends):
            content += Markup("<p>There are more. Add the campaign id to see others.</p>")
    elif search is not None:
        content += Markup("<p>The ledger does not contain the send <code>{}</code>; {}.</p>").format(
            safe_text(send_id), explain_unknown(search)
        )
    return render_document("Sends", content)


def _render_send(send: SendHistory, search: SendSearch, served: Collection[str]) -> Markup:
    facts = (
        Markup("<tr><th scope=row>{}</th><td>{}</td></tr>").format(name, safe_text(text))
        for name, text in list_facts(send, search, served)
    )
    return Markup(
        '<section class="send"><h2><code>{}</code></h2><p>campaign <code>{}</code>, workspace {}</p>'
        "<table>{}</table></section>"
    ).format(
        safe_text(send.pair.send_id),
        safe_text(send.pair.campaign_id),
        safe_text(send.pair.workspace),
        Markup("").join(facts),
    )
