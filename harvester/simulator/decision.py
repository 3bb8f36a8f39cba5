"""Decides the response to a request: checks key, quota and parameters, in this order. No sockets, headers or faults.

Documented: 401 for a wrong key, ``Access Denied`` (403) for one without the permission, 404 for a wrong path, 400 with
``Invalid Campaign ID``, 429 over the limit. Recorded: a 401 echoes the key; a 400 costs a request; the text of the 404.
Inferred: a 403 and a 404 cost a request as a 400 does, a 401 and a 429 cost none; the text of the 429.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from harvester.model import SentPair, Verdict
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.quota import Grant, SharedQuota
from harvester.simulator.request import BadRequest, parse_request
from harvester.simulator.series import answer

PATH = "/sends/data_series"


@dataclass(frozen=True, slots=True)
class Decision:
    """A response without its headers. ``grant`` is None if the key belongs to no workspace, so that no quota counts.

    ``verdict`` is the verdict that a reader must reach for a 200, and None for any other status.
    """

    status: int
    body: bytes
    grant: Grant | None
    verdict: Verdict | None = None


class DecisionMaker:
    """Holds the keys, the quota and the sends that exist."""

    def __init__(self, config: SimulatorConfig, quota: SharedQuota, sends: Iterable[SentPair]) -> None:
        """Index ``sends``. Every request with a valid key is charged to ``quota``."""
        self._config = config
        self._quota = quota
        self._allowed = f"Bearer {config.api_key}"
        self._forbidden = f"Bearer {config.forbidden_key}"
        self._sent_at: dict[str, dict[str, float | None]] = {}
        for each in sends:
            self._sent_at.setdefault(each.pair.campaign_id, {})[each.pair.send_id] = each.sent_at

    def decide(self, method: str, path: str, query: Mapping[str, str], *, authorization: str, now: float) -> Decision:
        """Decide a request at ``now`` (epoch seconds), and charge it. Never raises."""
        if authorization not in (self._allowed, self._forbidden):
            return Decision(401, _error_body(f"Invalid API key: {authorization.removeprefix('Bearer ')}"), None)
        grant = self._quota.take(now)
        if not grant.allowed:
            return Decision(429, _error_body("Rate limit exceeded"), grant)
        if (method, path) != ("GET", PATH):
            return Decision(404, _error_body("Invalid URL"), grant)
        if authorization != self._allowed:
            return Decision(403, _error_body("Access Denied"), grant)
        try:
            verdict, body = self._series(query, now)
        except BadRequest as error:
            return Decision(400, _error_body(str(error)), grant)
        return Decision(200, body, grant, verdict)

    def _series(self, query: Mapping[str, str], now: float) -> tuple[Verdict, bytes]:
        sends = self._sent_at.get(query.get("campaign_id", ""))
        if sends is None:
            raise BadRequest("Invalid Campaign ID")
        request = parse_request(query, now)
        return answer(
            request,
            seed=self._config.seed,
            sent_at=sends.get(request.send_id),
            now=now,
            unknown_pairs=self._config.unknown_pairs,
        )


def _error_body(message: str) -> bytes:
    return orjson.dumps({"message": message})
