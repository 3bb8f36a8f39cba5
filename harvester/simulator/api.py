"""The stand-in API on loopback: it owns the socket, the headers, the choice of faults and the log.

Documented: three headers tell of the budget, ``X-RateLimit-Reset`` in epoch seconds. Recorded: an ``X-Request-Id`` on
every answer, Cloudflare as the server, and on a 401 the three headers, but empty.

An answer is judged, counted and logged without a pause between, and only then leaves. So what is in the log was
answered, even if nobody lived to read it, and what is not in the log never left.
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
from harvester.simulator.budget import SharedBudget
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.decision import Judge, Judgement
from harvester.simulator.neighbour import neighbour_of
from harvester.simulator.population import population
from harvester.simulator.random_draw import draw
from harvester.simulator.request import day_of


class Simulator:
    """A running stand-in; use it as an async context manager and ask at ``url``."""

    def __init__(self, config: SimulatorConfig, clock: Clock | None = None) -> None:
        """Hold the sends in memory, about 300 bytes each. All times are those of ``clock``.

        ``answers`` counts by status, or by fault where not even a status left.
        """
        self.config = config
        self.url = ""
        self.answers: Counter[str] = Counter()
        self._clock = clock or SystemClock()
        self.day = config.day or date.fromordinal(day_of(self._clock.wall()))
        neighbour = neighbour_of(config.neighbour, config.neighbour_share, config.window_seconds)
        self.budget = SharedBudget(config.limit, config.window_seconds, neighbour)
        self.population = list(population(seed=config.seed, pairs=config.pairs, day=self.day))
        self._judge = Judge(config, self.budget, self.population)
        self._times_asked: Counter[str] = Counter()
        self._number = 0
        self._log: BinaryIO | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen on loopback. Raises ``UsageError`` for a log that cannot be written or a port that is taken."""
        if self.config.log is not None:
            try:
                self._log = self.config.log.open("ab", buffering=0)
            except OSError as error:
                raise UsageError(f"cannot write the log {self.config.log}: {error.strerror}") from None
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
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
        """Stop listening, and let the neighbour spend what is due by now."""
        await self._close()
        self.budget.pass_time(self._clock.wall())

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._log is not None:
            self._log.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.config.latency_seconds:
            await asyncio.sleep(self.config.latency_seconds)
        now, query = self._clock.wall(), request.query
        self._number += 1
        judged = self._judge.judge(
            request.method, request.path, query, authorization=request.headers.get("Authorization", ""), now=now
        )
        answer = web.Response(status=judged.status, body=judged.body, headers=self._headers(judged, now))
        fault = self._fault(query.get("send_id", "")) if judged.status in (200, 400) else None
        if fault is not None:
            answer = faults.spoiled(answer, fault)
        self._note(judged, answer, fault, query, now)
        return answer

    def _headers(self, judged: Judgement, now: float) -> dict[str, str]:
        grant = judged.grant
        return {
            faults.LIMIT: str(grant.limit) if grant else "",
            faults.REMAINING: str(grant.remaining) if grant else "",
            faults.RESET: str(ceil(grant.reset_at)) if grant else "",
            "Content-Type": "application/json",
            "Date": _date(int(now)),
            "Server": "cloudflare",
            "X-Request-Id": f"00000000-0000-4000-8000-{self._number:012x}",
        }

    def _fault(self, send_id: str) -> str | None:
        """Choose a fault for this call, or none: the one its send id asks for, or else one by rate."""
        config = self.config
        if (asked := faults.asked_for(send_id)) is not None:
            name, times = asked
            self._times_asked[send_id] += 1
            if times is None or self._times_asked[send_id] <= times:
                return name
        if config.fault_rate and draw(config.seed, self._number) % 10_000 < config.fault_rate * 10_000:
            return config.faults[draw(config.seed, "fault", self._number) % len(config.faults)]
        return None

    def _note(
        self, judged: Judgement, answer: web.Response, fault: str | None, query: Mapping[str, str], now: float
    ) -> None:
        """Count an answer and log it. A verdict stands only where the body leaves as it was."""
        status = None if isinstance(answer, faults.Unanswered) else answer.status
        self.answers[str(status or fault)] += 1
        if self._log is None:
            return
        line = {
            "campaign_id": query.get("campaign_id"),
            "send_id": query.get("send_id"),
            "status": status,
            "fault": fault,
            "verdict": judged.verdict if status == 200 and answer.body is judged.body else None,
            "remaining": judged.grant.remaining if judged.grant else None,
            "at": now,
        }
        self._log.write(orjson.dumps(line) + b"\n")


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    """Give a time as ``Date`` has it: whole seconds, in GMT."""
    return formatdate(second, usegmt=True)
