"""The rejected and expired pairs on the page and as CSV, with the command that requests them again."""

import csv
import io
import re
from collections.abc import AsyncIterator
from html import unescape

import aiohttp
import pytest

from harvester.books import Books
from harvester.clock import SystemClock
from harvester.ledger import FailedPair, Ledger
from harvester.model import Batch, Pair, ReadingOutcome, Rejected, SentPair
from harvester.web import WebServer, search_handlers
from harvester.web.failures import COLUMNS, encode_csv, list_groups, render_failures
from tests.support import snapshots
from tests.support.ledger_file import explained, recorded_statements
from tests.web.test_page import Elements
from tests.web.test_server import SnapshotSource, get

DAY = 86_400


@pytest.fixture
async def ledger(tmp_path) -> AsyncIterator[Ledger]:
    """A ledger with 150 pairs that are not found, a refused one, an expired one and a pending one."""
    clock = SystemClock()
    async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as opened:
        await opened.intake.enqueue([SentPair(Pair("eu", "c", f"s{n}"), clock.wall() - DAY) for n in range(151)])
        readings = await opened.batches.claim({"eu": 151})
        refused = [ReadingOutcome(each, Rejected("status_404", "=none")) for each in readings[1:]]
        refused.append(ReadingOutcome(readings[0], Rejected("status_400", "bad")))
        assert await opened.batches.seal([(Batch.open(1.0), refused, [])])
        await opened.intake.enqueue([SentPair(Pair("us", "c", "late"), clock.wall() - 20 * DAY)])
        assert await opened.upkeep.expire(["us"], trust_clock=True) == 1  # it came too late
        await opened.intake.enqueue([SentPair(Pair("eu", "c", "pending"))])
        yield opened


@pytest.fixture
async def server(ledger):
    """A web server with this ledger."""
    source = SnapshotSource()
    async with WebServer(take_snapshot=source, clock=source, port=0, reports=ledger.reports) as listening:
        yield listening


@pytest.fixture
async def http():
    """A client."""
    async with aiohttp.ClientSession() as session:
        yield session


async def test_each_reason_has_its_command_and_its_pairs_in_pages(http, server):
    """Every pair is on one page; the last page has no link to another."""
    _, page = await get(http, server, "/rejections")
    read = " ".join(Elements(page.partition("<main>")[2]).text.split())
    for group in (
        "rejected: status 404 150 harvester requeue --outcome rejected --reason status_404",
        "rejected: status 400 1 harvester requeue --outcome rejected --reason status_400",
        "expired 1 harvester requeue --outcome expired",
    ):
        assert group in read
    path, seen = "/rejections?outcome=rejected&reason=status_404", []
    while path:
        _, page = await get(http, server, path)
        seen.append(re.findall(r"<code>(s\d+)</code>", page))
        following = re.search(r'href="([^"]*)">Next page', page)
        path = unescape(following[1]) if following else ""
    assert [len(each) for each in seen] == [100, 50]
    assert len({each for page in seen for each in page}) == 150
    assert "<code>late</code>" in (await get(http, server, "/rejections?outcome=expired"))[1]


async def test_the_csv_has_every_failed_pair_and_can_be_used_as_a_list(http, server, monkeypatch):
    """The CSV has every failed pair, also of many pages, and no detail is a formula in a spreadsheet."""
    monkeypatch.setattr(search_handlers, "CSV_PAIRS", 40)
    status, text = await get(http, server, "/rejections.csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (status, text.splitlines()[0], len(rows)) == (200, ",".join(COLUMNS), 152)
    assert len({row["send_id"] for row in rows}) == 152
    assert {(row["outcome"], row["reason"], row["detail"]) for row in rows} == {
        ("rejected", "status_404", "'=none"), ("rejected", "status_400", "bad"), ("expired", "", ""),
    }  # fmt: skip
    async with http.head(server.url + "/rejections.csv") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


UNUSUAL = ["x", "rejected&reason=nope", "captured", "&after=-1", "expired&after=" + "9" * 25, "expired&after=%00"]


@pytest.mark.parametrize("query", UNUSUAL)
async def test_any_query_has_a_page(http, server, query):
    """A query with an unknown reason or bookmark has a page too."""
    assert (await get(http, server, f"/rejections?outcome={query}"))[0] == 200


async def test_a_ledger_that_cannot_be_read_is_no_empty_csv(http, server, ledger):
    """If the ledger cannot be read, the response is an error and not an empty CSV."""
    ledger.location.rename(ledger.location.with_name("moved.db"))
    for path in ("/rejections", "/rejections.csv"):
        assert (await get(http, server, path))[0] == 503


async def test_no_page_reads_or_sorts_all_pairs(ledger, tmp_path):
    """A page of a million failed pairs takes milliseconds."""
    with recorded_statements(ledger) as statements:
        await ledger.reports.list_failed("rejected", "status_404", after=5, limit=10)
        await ledger.reports.list_failed("expired", None, after=0, limit=10)
    plan = explained(tmp_path / "ledger.db", statements)
    found = [line for line in plan if "pair_failed (outcome=? AND reason=? AND id>?)" in line]
    assert (len(found), [line for line in plan if line.startswith("SCAN pair ")]) == (2, []), plan


@pytest.mark.parametrize("harm", ["<script>", "'" * 400, "\U0001f600" * 400, "\x00" * 400])
def test_the_largest_page_is_limited_and_escaped(harm):
    """A page takes at most 100 KB, and the next page begins with the first pair that is not shown."""
    pairs = [FailedPair(n, Pair(harm, harm, harm), "rejected", harm, harm, snapshots.NOW) for n in range(101)]
    books = Books(101, {}, {harm: 101, **{f"status_{n}": 1 for n in range(100)}}, 0, 0)
    groups = list_groups(books)
    page = render_failures(groups, groups[0], pairs)
    assert len(page.encode()) < 100_000
    assert "<script" not in page
    shown = page.partition("<h2>")[2].count("<tr>") - 1
    assert f'after={shown - 1}"' in page


def test_half_a_character_from_outside_breaks_no_csv():
    """An id that contains half a character does not break the CSV."""
    assert encode_csv([FailedPair(1, Pair("eu", "\udcff", "s"), "expired", "", "", None)]) == b"eu,?,s,expired,,,\n"


async def test_a_csv_that_breaks_off_is_no_complete_response(http, server, ledger, monkeypatch):
    """If the ledger is lost during the download, a program gets an error and not a shorter list."""
    encode = search_handlers.encode_csv

    def encode_and_lose_the_ledger(*arguments, **options):
        if ledger.location.exists():
            ledger.location.rename(ledger.location.with_name("moved.db"))
        return encode(*arguments, **options)

    monkeypatch.setattr(search_handlers, "encode_csv", encode_and_lose_the_ledger)
    with pytest.raises(aiohttp.ClientPayloadError):
        await get(http, server, "/rejections.csv")
