"""The web face: probes, metrics and the status page on one small server that only ever reads.

It owns the socket, the headers and how long a look is good for. It must never change anything, and never ask the
ledger more often than is cheap: whoever comes within a look's life gets the same snapshot.
"""

import asyncio
import logging
import os
import traceback
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from harvester.clock import Clock
from harvester.errors import HarvesterError, UsageError
from harvester.formatting import shown
from harvester.monitor.snapshot import Snapshot
from harvester.web.connections import Connections, connection_limit
from harvester.web.hosts import allowed_hosts, is_allowed
from harvester.web.metrics import encode_metrics
from harvester.web.page import POLICY, page

LOOK_SECONDS, LOOK_MAX_SECONDS = 2.0, 30.0
LOOK_SHARE = 20.0
"""A look that took long is good for so many times as long: looking takes about a twentieth of the ledger's time."""

LOOK_TIMEOUT_SECONDS = 10.0

IDLE_SECONDS = 10.0
"""For how long a connection may take to send a request's head, and stay open after an answer."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = structlog.get_logger()

_STRANGERS = logging.Logger("what strangers send that is no HTTP")  # noqa: LOG001 - it must stand alone: nobody reads it
_STRANGERS.addHandler(logging.NullHandler())


class Face:
    """A listening web face; use it as an async context manager. ``url`` leads to it."""

    def __init__(
        self, *, look: Callable[[], Awaitable[Snapshot]], clock: Clock, host: str = "127.0.0.1", port: int = 8080
    ) -> None:
        """Show what ``look`` gives; a ``HarvesterError`` it raises is shown too. Port 0 chooses a free one."""
        self.url = ""
        self._look = look
        self._clock = clock
        self._host = host
        self._port = port
        self._looking = asyncio.Lock()
        self._seen: Snapshot | None = None
        self._problem: str | None = "nothing has been looked at yet"
        self._good_until = 0.0
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._connections = Connections(connection_limit())

    async def __aenter__(self) -> Self:
        """Listen. Raises ``UsageError`` for an address that cannot be had."""
        app = web.Application(middlewares=[self._counted, _briefly, _of_hosts(self._host)])
        app.add_routes([
            web.get("/livez", self._livez),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._metrics),
            web.get("/", self._page),
        ])  # fmt: skip
        app.on_response_prepare.append(_with_headers)
        self._runner = web.AppRunner(
            app, access_log=None, logger=_STRANGERS, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=1
        )
        await self._runner.setup()
        make = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: self._connections.protocol(make), self._host, self._port, backlog=128
            )
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"the web face cannot listen on {self._host}:{self._port}: {_said(error)}; "
                "choose another web_host or web_port (HARVESTER_WEB_PORT)"
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
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Track which connections wait for an answer, and which are idle."""
        self._connections.asked(request.transport)
        try:
            return await handler(request)
        finally:
            self._connections.answered(request.transport)

    async def _livez(self, _request: web.Request) -> web.Response:
        """Answer at all: that the loop turns is the news."""
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        snapshot, problem = await self._newest()
        if snapshot is None or problem is not None:
            return web.Response(status=503, text=f"{problem}\n")
        if reasons := snapshot.not_ready():
            return web.Response(status=503, text="\n".join(reasons) + "\n")
        return web.Response(text="\n".join(["ready", *(shown(each.sentence) for each in snapshot.conditions)]) + "\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        """Tell what was looked at now. What is old is no measurement: then there are none, and the scraper notices."""
        snapshot, problem = await self._newest()
        if snapshot is None or problem is not None:
            return web.Response(status=503, text=f"{problem}\n")
        body, content_type = encode_metrics(snapshot, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _page(self, _request: web.Request) -> web.Response:
        snapshot, problem = await self._newest()
        return _as_html(page(snapshot, problem, now=self._clock.wall()))

    async def _newest(self) -> tuple[Snapshot | None, str | None]:
        """Give the newest snapshot, and why it is not of now, if it is not. Many ask, one looks."""
        async with self._looking:
            began = self._clock.monotonic()
            if began >= self._good_until:
                try:
                    async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                        self._seen = await self._look()
                    self._problem = None
                except HarvesterError as error:
                    self._problem = shown(str(error))
                except TimeoutError:
                    self._problem = f"the ledger has not answered for {LOOK_TIMEOUT_SECONDS:.0f} seconds"
                ended = self._clock.monotonic()
                self._good_until = ended + min(max(LOOK_SECONDS, LOOK_SHARE * (ended - began)), LOOK_MAX_SECONDS)
            return self._seen, self._problem


def _as_html(document: str) -> web.Response:
    """Send a document, even if half a character of a stranger's got into it."""
    return web.Response(body=document.encode("utf-8", "replace"), content_type="text/html", charset="utf-8")


def _said(error: OSError) -> str:
    """Give the system's own word, without what asyncio tells around it; a name that is not known has a number below."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _of_hosts(bound: str) -> Middleware:
    """Answer only requests for a name of ours."""
    allowed = allowed_hosts(bound)

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_allowed(request.headers.getall("Host", []), allowed):
            return await handler(request)
        return web.Response(
            status=421, text="only requests for the hosts localhost, 127.0.0.1 and [::1] are answered\n"
        )

    return checked


@web.middleware
async def _briefly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what is not served in one line, and a bug of ours without its traceback, which goes to the log."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return web.Response(status=error.status, text=f"{error.reason.lower()}\n", headers=allowed)
    except Exception:  # noqa: BLE001 - it is told in the log, and the other pages still answer
        trace = traceback.format_exc()
        log.error("web_request_failed", path=shown(request.path), trace=trace)  # noqa: TRY400 - a trace without locals
        return web.Response(status=500, text="this is a bug, and the log has more of it\n")


async def _with_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)
    response.headers.update(HEADERS)
