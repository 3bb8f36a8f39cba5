"""The stand-in API on loopback: the socket, the headers, the choice of faults and the log.

- Documented: three headers report the quota; ``X-RateLimit-Reset`` is in epoch seconds.
- Recorded: an ``X-Request-Id`` in every response, Cloudflare as the server, and the three headers empty in a 401.

A response is decided, counted and logged in one step, and only then sent. So the log contains every response that was
sent, even if its client was killed.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import date
from email.utils import formatdate
from functools import lru_cache
from math import ceil
from types import TracebackType
from typing import BinaryIO, Self

import orjson
from aiohttp import web

from harvester.clock import Clock, SystemClock
from harvester.errors import UsageError
from harvester.simulator import faults
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.decision import Decision, DecisionMaker
from harvester.simulator.neighbour import create_neighbour
from harvester.simulator.population import generate_population
from harvester.simulator.quota import SharedQuota
from harvester.simulator.random_draw import random_draw
from harvester.simulator.request import get_day


class Simulator:
    """A running stand-in. Use it as an async context manager; it listens at ``url``."""

    def __init__(self, config: SimulatorConfig, clock: Clock | None = None) -> None:
        """Create the sends in memory, about 300 bytes for each. All times come from ``clock``.

        ``population`` contains the sends. ``responses`` counts responses by status, or by fault if no status was sent.
        """
        self.config = config
        self.url = ""
        self.responses: Counter[str] = Counter()
        self._clock = clock or SystemClock()
        self.day = config.day or date.fromordinal(get_day(self._clock.wall()))
        neighbour = create_neighbour(config.neighbour, config.neighbour_share, config.window_seconds)
        self.quota = SharedQuota(config.limit, config.window_seconds, neighbour)
        self.population = list(generate_population(seed=config.seed, pairs=config.pairs, day=self.day))
        self._decisions = DecisionMaker(config, self.quota, self.population)
        self._times_requested: Counter[str] = Counter()
        self._number = 0
        self._log: BinaryIO | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen on loopback. Raises ``UsageError`` if the log cannot be written or the port is in use."""
        if self.config.log is not None:
            try:
                self._log = self.config.log.open("ab", buffering=0)
            except OSError as error:
                raise UsageError(f"cannot write the log {self.config.log}: {error.strerror}") from None
        self._runner = web.ServerRunner(web.Server(self._handle_request, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self.config.port).start()
        except OSError as error:
            await self._close()
            raise UsageError(
                f"cannot listen on port {self.config.port}: {error.strerror}; choose another --port"
            ) from None
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, and charge the requests of the neighbour up to now."""
        await self._close()
        self.quota.advance(self._clock.wall())

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._log is not None:
            self._log.close()

    async def _handle_request(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.config.latency_seconds:
            await asyncio.sleep(self.config.latency_seconds)
        now, query = self._clock.wall(), request.query
        self._number += 1
        decision = self._decisions.decide(
            request.method, request.path, query, authorization=request.headers.get("Authorization", ""), now=now
        )
        response = web.Response(status=decision.status, body=decision.body, headers=self._build_headers(decision, now))
        fault = self._choose_fault(query.get("send_id", "")) if decision.status in (200, 400) else None
        if fault is not None:
            response = faults.corrupt(response, fault)
        self._record_response(decision, response, fault, query, now)
        return response

    def _build_headers(self, decision: Decision, now: float) -> dict[str, str]:
        grant = decision.grant
        return {
            faults.LIMIT: str(grant.limit) if grant else "",
            faults.REMAINING: str(grant.remaining) if grant else "",
            faults.RESET: str(ceil(grant.reset_at)) if grant else "",
            "Content-Type": "application/json",
            "Date": _format_date(int(now)),
            "Server": "cloudflare",
            "X-Request-Id": f"00000000-0000-4000-8000-{self._number:012x}",
        }

    def _choose_fault(self, send_id: str) -> str | None:
        """Choose the fault of this request: the one that its send id requests, otherwise one by rate, or none."""
        config = self.config
        if (requested := faults.parse_requested_fault(send_id)) is not None:
            name, times = requested
            self._times_requested[send_id] += 1
            if times is None or self._times_requested[send_id] <= times:
                return name
        if config.fault_rate and random_draw(config.seed, self._number) % 10_000 < config.fault_rate * 10_000:
            return config.faults[random_draw(config.seed, "fault", self._number) % len(config.faults)]
        return None

    def _record_response(
        self, decision: Decision, response: web.Response, fault: str | None, query: Mapping[str, str], now: float
    ) -> None:
        """Count and log a response. The log line has a verdict only if the fault did not change the body."""
        status = None if isinstance(response, faults.CutConnection) else response.status
        self.responses[str(status or fault)] += 1
        if self._log is None:
            return
        line = {
            "campaign_id": query.get("campaign_id"),
            "send_id": query.get("send_id"),
            "status": status,
            "fault": fault,
            "verdict": decision.verdict if status == 200 and response.body is decision.body else None,
            "remaining": decision.grant.remaining if decision.grant else None,
            "at": now,
        }
        self._log.write(orjson.dumps(line) + b"\n")


@lru_cache(maxsize=4)
def _format_date(second: int) -> str:
    """Format a time (epoch seconds) for the header ``Date``, in GMT."""
    return formatdate(second, usegmt=True)
