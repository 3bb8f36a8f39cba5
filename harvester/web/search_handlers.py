"""Handles requests that search the ledger: for a send, and for rejected and expired pairs. It only reads."""

import contextlib
from collections.abc import AsyncIterator, Collection

from aiohttp import web

from harvester.errors import HarvesterError
from harvester.ledger import DueCount, FailedPair, Reports
from harvester.text import printable
from harvester.web.failures import MAX_PAIRS, FailedGroup, encode_csv, list_groups, render_failures
from harvester.web.search_limit import SearchesBusy, SearchLimit
from harvester.web.searches import MAX_SENDS, render_sends

MAX_PLANNED = 12
"""How many due times of a workspace are shown."""

CSV_PAIRS = 1000
"""How many pairs are read from the ledger at once."""


class SearchHandlers:
    """The handlers of ``/sends``, ``/rejections`` and ``/rejections.csv``.

    They raise ``LedgerError``, ``SearchesBusy`` and ``TimeoutError``.
    """

    def __init__(self, reports: Reports, served: Collection[str], limit: SearchLimit) -> None:
        """Search in a ledger; ``served`` are the configured workspaces."""
        self._reports = reports
        self._limit = limit
        self._served = served

    def routes(self) -> list[web.RouteDef]:
        """Return the paths with their handlers."""
        return [
            web.get("/sends", self._sends),
            web.get("/rejections", self._failures),
            web.get("/rejections.csv", self._csv),
        ]

    async def list_planned(self, workspace: str) -> list[DueCount]:
        """Return when the next readings of a workspace are due, and how many. Raises as the handlers."""
        return await self._limit.run(lambda: self._reports.list_planned(printable(workspace), limit=MAX_PLANNED))

    async def _sends(self, request: web.Request) -> web.Response:
        """Find a send by its id, and optionally its campaign's."""
        # PostgreSQL refuses a character that no id contains.
        send_id, campaign_id = (printable(request.query.get(name, "")).strip() for name in ("q", "campaign_id"))
        search = None
        if send_id:
            search = await self._limit.run(
                lambda: self._reports.find_sends(send_id, campaign_id=campaign_id or None, limit=MAX_SENDS)
            )
        return respond_with(render_sends(search, send_id, campaign_id, self._served))

    async def _failures(self, request: web.Request) -> web.Response:
        """List how many pairs failed by reason, and a page of those with one reason."""
        outcome, reason = request.query.get("outcome", ""), request.query.get("reason") or None
        groups = list_groups(await self._limit.run(self._reports.get_books))
        chosen = next((each for each in groups if (each.outcome, each.reason) == (outcome, reason)), None)
        page = None
        if chosen is not None:
            after = _read_order(request)
            page = await self._limit.run(
                lambda: self._reports.list_failed(outcome, reason, after=after, limit=MAX_PAIRS + 1)
            )
        return respond_with(render_failures(groups, chosen, page))

    async def _csv(self, request: web.Request) -> web.StreamResponse:
        """Send all failed pairs, page by page, so that memory is limited."""
        pages = self._pages()
        first = await anext(pages)  # an error is a response of its own only before the first byte
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/csv; charset=utf-8",
                "Content-Disposition": 'attachment; filename="rejections.csv"',
            }
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        complete = False
        with contextlib.suppress(HarvesterError, SearchesBusy, TimeoutError, ConnectionError):
            try:
                await response.write(encode_csv(first, header=True))
                async for page in pages:
                    await response.write(encode_csv(page))
                complete = True
            finally:
                if not complete and request.transport is not None:
                    request.transport.close()  # without the end of the body, the client knows that it is incomplete
        return response

    async def _pages(self) -> AsyncIterator[list[FailedPair]]:
        """Yield all failed pairs in pages; the first page may be empty. Later pages wait longer for their turn."""
        groups = list_groups(await self._limit.run(self._reports.get_books))
        yield []
        for each in groups:
            after = 0
            while page := await self._list_page(each, after):
                yield page
                after = page[-1].order

    async def _list_page(self, group: FailedGroup, after: int) -> list[FailedPair]:
        return await self._limit.run(
            lambda: self._reports.list_failed(group.outcome, group.reason, after=after, limit=CSV_PAIRS),
            patient=True,
        )


def _read_order(request: web.Request) -> int:
    """Return the bookmark of a page; 0 for the first page and for what is no bookmark."""
    text = request.query.get("after", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def respond_with(text: str, *, content_type: str = "text/html") -> web.Response:
    """Return a response with a text."""
    # Text from outside may contain half of a surrogate pair, which cannot be encoded.
    return web.Response(body=text.encode("utf-8", "replace"), content_type=content_type, charset="utf-8")
