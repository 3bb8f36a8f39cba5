"""Decides the response to a request: checks key, quota and parameters, in this order. No sockets, headers or faults.

- Documented: 401 for a wrong key, 403 (``Access Denied``) for a key without the permission, 404 for a wrong path.
  Also documented: 400 with ``Invalid Campaign ID``, and 429 above the limit.
- Recorded: a 401 repeats the key, a 400 costs a request, and the text of the 404.
- Inferred: a 403 and a 404 cost a request, a 401 and a 429 cost none, and the text of the 429.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from harvester.model import SentPair, Verdict
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.quota import Grant, SharedQuota
from harvester.simulator.request import BadRequest, parse_request
from harvester.simulator.series import compute_series

PATH = "/sends/data_series"


@dataclass(frozen=True, slots=True)
class Decision:
    """A response without its headers. ``grant`` is None if the key is wrong: then no quota applies.

    ``verdict`` is the correct verdict for the body of a 200, and None for any other status.
    """

    status: int
    body: bytes
    grant: Grant | None
    verdict: Verdict | None = None


class DecisionMaker:
    """Decides responses from the keys, the quota and the sends that exist."""

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
        """Decide the response to a request at ``now`` (epoch seconds), and charge the request. Never raises."""
        if authorization not in (self._allowed, self._forbidden):
            return Decision(401, _encode_error(f"Invalid API key: {authorization.removeprefix('Bearer ')}"), None)
        grant = self._quota.charge(now)
        if not grant.allowed:
            return Decision(429, _encode_error("Rate limit exceeded"), grant)
        if (method, path) != ("GET", PATH):
            return Decision(404, _encode_error("Invalid URL"), grant)
        if authorization != self._allowed:
            return Decision(403, _encode_error("Access Denied"), grant)
        try:
            verdict, body = self._compute_series(query, now)
        except BadRequest as error:
            return Decision(400, _encode_error(str(error)), grant)
        return Decision(200, body, grant, verdict)

    def _compute_series(self, query: Mapping[str, str], now: float) -> tuple[Verdict, bytes]:
        sends = self._sent_at.get(query.get("campaign_id", ""))
        if sends is None:
            raise BadRequest("Invalid Campaign ID")
        request = parse_request(query, now)
        return compute_series(
            request,
            seed=self._config.seed,
            sent_at=sends.get(request.send_id),
            now=now,
            unknown_pairs=self._config.unknown_pairs,
        )


def _encode_error(message: str) -> bytes:
    return orjson.dumps({"message": message})
