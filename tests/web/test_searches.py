"""The pages that search the ledger: the same words as the command line, escaped, and of a limited size."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.clock import SystemClock
from harvester.commands.show import list_facts
from harvester.ledger import Ledger, PastReading, SendHistory, SendSearch
from harvester.model import Pair, SentPair
from harvester.web import WebServer, search_limit
from harvester.web.searches import render_sends
from tests.support import snapshots
from tests.support.ledger_file import only_sqlite
from tests.web.test_page import Elements
from tests.web.test_server import SnapshotSource, get

NOW = snapshots.NOW


@pytest.fixture
async def ledger(location) -> AsyncIterator[Ledger]:
    """A ledger with a send in two campaigns."""
    async with await Ledger.open(location, clock=SystemClock()) as opened:
        await opened.intake.enqueue([SentPair(Pair("eu", each, "<s>")) for each in ("c1", "c2")])
        yield opened


@pytest.fixture
async def server(ledger):
    """A web server with this ledger."""
    source = SnapshotSource()
    async with WebServer(
        take_snapshot=source, clock=source, port=0, reports=ledger.reports, served=["eu"]
    ) as listening:
        yield listening


@pytest.fixture
async def http():
    """A client."""
    async with aiohttp.ClientSession() as session:
        yield session


def read(document: str) -> str:
    """Return the visible text of a document."""
    return " ".join(Elements(document.partition("<main>")[2]).text.split())


@only_sqlite
async def test_the_page_finds_a_send_without_a_script(http, server, ledger):
    """The form of the status page leads to the page of a send, which shows what ``harvester show`` prints."""
    assert '<form action="/sends"' in (await get(http, server, "/"))[1]
    status, page = await get(http, server, "/sends?q=%3Cs%3E&campaign_id=c2")
    assert status == 200
    found = await ledger.reports.find_sends("<s>", campaign_id="c2", limit=1)
    assert dict(list_facts(found.sends[0], found, ["eu"]))["state"] in read(page)
    assert "campaign c1" not in read(page)
    assert "<script" not in page
    _, page = await get(http, server, "/sends?q=%3Cs%3E")
    assert ["campaign c1" in read(page), "campaign c2" in read(page)] == [True, True]


@pytest.mark.parametrize(
    "query", ["", "?q=", "?q=nope", "?q=%00", "?q=%ED%A0%80", "?q=%ff", "?q=" + "a" * 4000, "?x=1"]
)
async def test_any_search_has_a_page(http, server, query):
    """The page of a send that does not exist says what to do."""
    assert (await get(http, server, "/?workspace=eu%00"))[0] == 200
    status, page = await get(http, server, f"/sends{query}")
    searched = query.startswith("?q=") and len(query) > 3
    assert (status, "harvester enqueue adds a send" in page) == (200, searched)


@only_sqlite
async def test_a_ledger_that_cannot_be_read_is_reported(http, server, ledger):
    """If the ledger cannot be read, the page says why in one line."""
    ledger.location.rename(ledger.location.with_name("moved.db"))
    status, text = await get(http, server, "/sends?q=s")
    assert (status, "was removed or replaced while it was in use" in text, text.count("\n")) == (503, True, 1)


@only_sqlite
async def test_a_search_is_refused_while_another_runs(http, server, monkeypatch):
    """While another search runs, every page that searches the ledger says when to try again."""
    monkeypatch.setattr(search_limit, "BUSY_SECONDS", 0.01)
    await get(http, server, "/readyz")  # the page of a workspace needs a snapshot
    ends = asyncio.Event()
    async with asyncio.TaskGroup() as others:
        others.create_task(server._search_handlers._limit.run(ends.wait))
        for path in ("/sends?q=s", "/rejections", "/rejections.csv", "/?workspace=eu"):
            async with http.get(server.url + path) as refused:
                assert (refused.status, refused.headers.get("Retry-After")) == (503, "5"), path
                assert await refused.text() == "other searches are running; try again in a few seconds\n"
        ends.set()
    assert (await get(http, server, "/sends?q=s"))[0] == 200


def render_with(harm: str, *, sends: int) -> str:
    """Render a page on which every text from outside is ``harm``."""
    past = PastReading("d1", "rejected", None, harm, harm, NOW, harm, None)
    send = SendHistory(
        Pair(harm, harm, harm), "rejected", NOW, NOW, NOW, 1, (past,) * 2 * sends, None, harm, has_plan=True
    )
    found = SendSearch(NOW, (send,) * sends, more=True, in_use=True, served=True)
    return render_sends(found, harm, harm, [])


@given(harm=st.text(max_size=70))
def test_text_from_outside_never_becomes_markup(harm):
    """Whatever ids and responses contain, the page has the same elements."""
    assert Elements(render_with(harm, sends=1)).tags == Elements(render_with("plain", sends=1)).tags


@pytest.mark.parametrize("harm", ["'" * 2000, "\U0001f600" * 2000, "\x00" * 400])
def test_the_largest_page_is_limited(harm):
    """The page takes at most 100 KB, and says that there are more sends."""
    page = render_with(harm, sends=10)
    assert len(page.encode()) < 100_000
    assert "There are more." in page
