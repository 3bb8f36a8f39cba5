"""The web server for probes, metrics and the status page.

It owns the socket and the headers. It changes nothing, and shows only snapshots of the monitor and reports of the
ledger.
"""

import asyncio
import logging
import os
import traceback
from collections.abc import Awaitable, Callable, Collection, Sequence
from types import TracebackType
from typing import Self, cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from harvester.clock import Clock
from harvester.condition import MAX_CONDITIONS
from harvester.errors import HarvesterError, UsageError
from harvester.formatting import number, safe_text
from harvester.ledger import Reports
from harvester.monitor.health import SnapshotCache
from harvester.monitor.snapshot import Snapshot
from harvester.web.connections import Connections, get_connection_limit
from harvester.web.document import POLICY
from harvester.web.hosts import is_allowed, list_allowed_hosts
from harvester.web.metrics import encode_metrics
from harvester.web.page import render_page, render_workspace_page
from harvester.web.search_handlers import SearchHandlers, respond_with
from harvester.web.search_limit import RETRY_AFTER_SECONDS, SearchesBusy, SearchLimit
from harvester.web.status import encode_status

IDLE_SECONDS = 10.0
"""How long a connection may take to send the head of a request, and stay open after a response."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = structlog.get_logger()

_MALFORMED_REQUESTS = logging.Logger("malformed requests")  # noqa: LOG001 - separate from all loggers, and discarded
_MALFORMED_REQUESTS.addHandler(logging.NullHandler())


class WebServer:
    """A server to use as an async context manager. ``url`` is its address."""

    def __init__(
        self,
        *,
        take_snapshot: Callable[[], Awaitable[Snapshot]],
        clock: Clock,
        host: str = "127.0.0.1",
        port: int = 8080,
        reports: Reports | None = None,
        served: Collection[str] = (),
    ) -> None:
        """Show the snapshots that ``take_snapshot`` returns, or its error. Port 0 chooses a free port.

        ``reports`` are for the pages that search the ledger; ``served`` are the configured workspaces.
        """
        self.url = ""
        self._clock = clock
        self._host = host
        self._port = port
        reading = asyncio.Lock()
        self._snapshots = SnapshotCache(take_snapshot, clock, reading)
        self._search_handlers = None if reports is None else SearchHandlers(reports, served, SearchLimit(reading))
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._connections = Connections(get_connection_limit())

    async def __aenter__(self) -> Self:
        """Listen. Raises ``UsageError`` if the address is not available."""
        app = web.Application(middlewares=[self._track_request, _shorten_errors, _check_host(self._host)])
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/", self._page),
                web.get("/api/status.json", self._status),
            ]
        )
        if self._search_handlers is not None:
            app.add_routes(self._search_handlers.routes())
        app.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(
            app, access_log=None, logger=_MALFORMED_REQUESTS, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=1
        )
        await self._runner.setup()
        make_protocol = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: self._connections.track(make_protocol), self._host, self._port, backlog=128
            )
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"the web server cannot listen on {self._host}:{self._port}: {_describe_error(error)}; "
                "choose another web_host, or another port with --web-port"
            ) from None
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        assert self._runner is not None
        assert self._server is not None
        self._server.close()
        await self._runner.cleanup()

    @web.middleware
    async def _track_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Track which connections wait for a response, and which are idle."""
        self._connections.request_received(request.transport)
        try:
            return await handler(request)
        finally:
            self._connections.response_sent(request.transport)

    async def _livez(self, _request: web.Request) -> web.Response:
        """Answer, which shows that the event loop runs."""
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        health = await self._snapshots.get()
        if (reasons := health.unready_reasons()) or health.snapshot is None:
            return web.Response(status=503, text=_list_sentences(reasons))
        sentences = [each.sentence for each in health.snapshot.conditions]
        return web.Response(text="ready\n" + _list_sentences(sentences))

    async def _metrics(self, request: web.Request) -> web.Response:
        """Return no metrics while the snapshot is old, so that the scraper notices."""
        health = await self._snapshots.get()
        if health.snapshot is None or health.problem is not None:
            return web.Response(status=503, text=_list_sentences(health.unready_reasons()))
        body, content_type = encode_metrics(
            health.snapshot,
            request.headers.get("Accept", ""),
            by_workspace=request.query.get("by_workspace") != "false",
        )
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _page(self, request: web.Request) -> web.Response:
        health, now = await self._snapshots.get(), self._clock.wall()
        if (name := request.query.get("workspace")) is not None:
            planned = [] if self._search_handlers is None else await self._search_handlers.list_planned(name)
            return respond_with(render_workspace_page(health, name, planned, now=now))
        return respond_with(render_page(health, now=now, pattern=request.query.get("filter", "")))

    async def _status(self, _request: web.Request) -> web.Response:
        return respond_with(encode_status(await self._snapshots.get()), content_type="application/json")


def _list_sentences(sentences: Sequence[str]) -> str:
    """Return the first sentences, one per line, and how many more there are."""
    lines = [safe_text(each) for each in sentences[:MAX_CONDITIONS]]
    more = len(sentences) - len(lines)
    return "".join(f"{line}\n" for line in [*lines, *([f"and {number(more)} more"] if more else [])])


def _describe_error(error: OSError) -> str:
    """Return the text of the operating system. Errors of name resolution have a negative number."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _check_host(bound: str) -> Middleware:
    """Answer only requests for an allowed ``Host``."""
    allowed = list_allowed_hosts(bound)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_allowed(request.headers.getall("Host", []), allowed):
            return await handler(request)
        return web.Response(status=421, text="the host must be localhost, 127.0.0.1 or [::1]\n")

    return check


@web.middleware
async def _shorten_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors with one line. The traceback of a bug goes to the log."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return web.Response(status=error.status, text=f"{error.reason.lower()}\n", headers=allowed)
    except SearchesBusy as error:
        return web.Response(status=503, text=f"{error}\n", headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    except (HarvesterError, TimeoutError) as error:
        problem = safe_text(str(error)) or "the ledger has not responded in time"
        return web.Response(status=503, text=f"{problem}\n")
    except Exception:  # noqa: BLE001 - it is logged, and the other paths still work
        trace = traceback.format_exc()
        log.error("web_request_failed", path=safe_text(request.path), trace=trace)  # noqa: TRY400 - a trace without locals
        return web.Response(status=500, text="a bug in harvester; see the log\n")


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)
    response.headers.update(HEADERS)
