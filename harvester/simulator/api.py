"""The stand-in API itself: ``GET /sends/data_series`` on loopback, with the budget, the errors and the faults.

Faults come by rate, drawn from the seed and the number of the call, or by send id: an id that holds
``fault-NAME`` meets that fault each time, ``fault-NAMEx2`` the first two times. Names are those of ``FAULTS``
and any status, as in ``fault-503``. What it answered is logged line by line, for verdicts from outside.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from uuid import UUID

import orjson
from aiohttp import web

from harvester.errors import UsageError
from harvester.simulator.budget import Grant, SharedBudget
from harvester.simulator.series import _number, answer, population

_LENGTH = re.compile(r"[1-9][0-9]?|100")
_FAULT = re.compile(r"fault-(\d{3}|[a-z]+?)(?:x(\d+))?(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """What to simulate. ``neighbour_share`` of the budget is spent evenly by others; ``fault_rate`` is 0 to 1."""

    seed: int = 1
    pairs: int = 5000
    limit: int = 250_000
    window_seconds: float = 3600.0
    api_key: str = "demo-key"
    port: int = 0
    latency_seconds: float = 0.0
    fault_rate: float = 0.0
    neighbour_share: float = 0.0
    log: Path | None = None


class Simulator:
    """A running stand-in; use it as an async context manager and ask at ``url``."""

    def __init__(self, config: SimulatorConfig) -> None:
        """Hold the population in memory: about 300 bytes a pair."""
        self.config = config
        self.url = ""
        self.answers: Counter[str] = Counter()
        self.neighbour_refused = 0
        self.budget = SharedBudget(config.limit, config.window_seconds)
        self.population = list(population(seed=config.seed, pairs=config.pairs, now=time.time()))
        self._sent_at = {(each.pair.campaign_id, each.pair.send_id): each.sent_at for each in self.population}
        self._campaigns = {campaign for campaign, _ in self._sent_at}
        self._seen: Counter[str] = Counter()
        self._number = 0
        self._log: BinaryIO | None = None
        self._runner: web.AppRunner | None = None
        self._neighbour: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listen on loopback."""
        app = web.Application()
        app.router.add_get("/sends/data_series", self._series)
        app.router.add_route("*", "/{path:.*}", self._elsewhere)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.config.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"cannot listen on port {self.config.port}: {error.strerror}; choose another --port"
            ) from None
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        if self.config.log is not None:
            self._log = self.config.log.open("ab", buffering=0)
        if self.config.neighbour_share:
            self._neighbour = asyncio.create_task(self._spend(), name="neighbour")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        if self._neighbour is not None:
            self._neighbour.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._log is not None:
            self._log.close()

    async def _spend(self) -> None:
        """Be the live sending of others: an even share of the same budget."""
        config = self.config
        rate, spent, began = config.limit * config.neighbour_share / config.window_seconds, 0, time.monotonic()
        while True:
            due = int((time.monotonic() - began) * rate)
            for _ in range(due - spent):
                self.neighbour_refused += not self.budget.take(time.time()).allowed
            spent = due
            await asyncio.sleep(0.05)

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002 - a handler's signature
        return _reply(404, {"message": "Invalid URL"}, self.budget.take(time.time()))

    async def _series(self, request: web.Request) -> web.StreamResponse:
        if self.config.latency_seconds:
            await asyncio.sleep(self.config.latency_seconds)
        authorization = request.headers.get("Authorization", "")
        given = authorization.removeprefix("Bearer ")
        if authorization != f"Bearer {self.config.api_key}":
            return self._told(request, _unauthorized(given), None)
        grant = self.budget.take(time.time())
        if not grant.allowed:
            return self._told(request, _reply(429, {"message": "Rate limit exceeded"}, grant), None)
        fault = self._fault(request.query.get("send_id", ""))
        if fault is not None:
            return self._told(request, await _faulty(fault, request, grant), fault)
        return self._told(request, self._answered(request, grant), None)

    def _answered(self, request: web.Request, grant: Grant) -> web.Response:
        query = request.query
        campaign_id, send_id, length = query.get("campaign_id", ""), query.get("send_id", ""), query.get("length", "")
        if campaign_id not in self._campaigns:
            return _reply(400, {"message": "Invalid Campaign ID"}, grant)
        if not send_id:
            return _reply(400, {"message": "send_id is required"}, grant)
        if _LENGTH.fullmatch(length) is None:
            return _reply(400, {"message": "length must be between 1 and 100"}, grant)
        now = time.time()
        try:
            ending_at = datetime.fromisoformat(query["ending_at"]).timestamp() if "ending_at" in query else now
        except ValueError:
            return _reply(400, {"message": "ending_at must be an ISO 8601 datetime"}, grant)
        found = answer(
            seed=self.config.seed, campaign_id=campaign_id, send_id=send_id,
            sent_at=self._sent_at.get((campaign_id, send_id)), now=now, length_days=int(length), ending_at=ending_at,
        )  # fmt: skip
        return _reply(200, found, grant)

    def _fault(self, send_id: str) -> str | None:
        """Choose a fault for this call, or none."""
        self._number += 1
        if (named := _FAULT.search(send_id)) is not None:
            self._seen[send_id] += 1
            if named[2] is None or self._seen[send_id] <= int(named[2]):
                return named[1]
        if (
            self.config.fault_rate
            and _number(self.config.seed, self._number) % 10_000 < self.config.fault_rate * 10_000
        ):
            return _BY_RATE[_number(self.config.seed, "kind", self._number) % len(_BY_RATE)]
        return None

    def _told(self, request: web.Request, response: web.StreamResponse, fault: str | None) -> web.StreamResponse:
        """Count an answer, and log it before it leaves."""
        self.answers[str(response.status)] += 1
        if self._log is not None:
            line = {"campaign_id": request.query.get("campaign_id"), "send_id": request.query.get("send_id"),
                    "status": response.status, "fault": fault, "at": time.time()}  # fmt: skip
            self._log.write(orjson.dumps(line) + b"\n")
        return response


def _reply(status: int, body: object, grant: Grant, **headers: str) -> web.Response:
    shown = {
        "X-RateLimit-Limit": str(grant.limit), "X-RateLimit-Remaining": str(grant.remaining),
        "X-RateLimit-Reset": str(int(grant.reset_at)), "Date": formatdate(time.time(), usegmt=True),
        "X-Request-Id": str(UUID(int=_number(grant.remaining, status) << 64)),
    }  # fmt: skip
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return web.Response(status=status, body=data, content_type="application/json", headers=shown | headers)


def _unauthorized(key: str) -> web.Response:
    """Refuse as recorded: the budget's headers are there but empty, and the body echoes the key."""
    empty = dict.fromkeys(("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"), "")
    return web.Response(
        status=401,
        body=orjson.dumps({"message": f"Invalid API key: {key}"}),
        content_type="application/json",
        headers=empty,
    )


async def _reset(request: web.Request, grant: Grant) -> web.StreamResponse:
    """Cut the connection before a status."""
    if request.transport is not None:
        request.transport.abort()
    return _reply(500, {}, grant)


async def _truncated(request: web.Request, grant: Grant) -> web.StreamResponse:
    """Promise more than is sent."""
    response = web.StreamResponse(headers={"Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"message":"success","data":[')
    if request.transport is not None:
        request.transport.close()
    _ = grant
    return response


async def _html(_request: web.Request, grant: Grant) -> web.StreamResponse:
    return _reply(200, b"<html><body>Just a moment...</body></html>", grant)


async def _nosuccess(_request: web.Request, grant: Grant) -> web.StreamResponse:
    return _reply(200, {"message": "queued"}, grant)


async def _slow(_request: web.Request, grant: Grant) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return _reply(200, {}, grant)


async def _redirect(_request: web.Request, grant: Grant) -> web.StreamResponse:
    return _reply(302, {}, grant, Location="http://127.0.0.2:9/")


FAULTS: dict[str, Callable[[web.Request, Grant], Awaitable[web.StreamResponse]]] = {
    "reset": _reset, "truncated": _truncated, "html": _html,
    "nosuccess": _nosuccess, "slow": _slow, "redirect": _redirect,
}  # fmt: skip
_BY_RATE = ("500", "502", "503", "520", "reset", "truncated", "html", "nosuccess")


async def _faulty(fault: str, request: web.Request, grant: Grant) -> web.StreamResponse:
    if fault in FAULTS:
        return await FAULTS[fault](request, grant)
    if fault == "429":
        return web.Response(status=429)
    if fault.isdigit():
        page = f"<html><title>{fault}: Web server is returning an unknown error</title></html>".encode()
        return _reply(int(fault), page if fault.startswith("5") else {"message": "fault"}, grant)
    return _reply(400, {"message": f"no such fault: {fault}"}, grant)
