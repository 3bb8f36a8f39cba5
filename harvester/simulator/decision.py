"""What a request comes to: its key, its budget, its question, in this order. No sockets, no headers, no faults.

Documented: 401 for a wrong key, ``Access Denied`` (403) for one without the permission, 404 for a wrong path, 400 with
``Invalid Campaign ID``, 429 over the limit. Recorded: a 401 echoes the key; a 400 costs a call; the text of the 404.
Inferred: a 403 and a 404 cost a call as a 400 does, a 401 and a 429 cost none; the text of the 429.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from harvester.model import Enqueued, Verdict
from harvester.simulator.budget import Grant, SharedBudget
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.request import BadQuestion, question
from harvester.simulator.series import answer

PATH = "/sends/data_series"


@dataclass(frozen=True, slots=True)
class Judgement:
    """An answer without its headers. ``grant`` is None where no workspace is known, and so no budget.

    ``verdict`` is what a reader must make of a 200, and None for any other status.
    """

    status: int
    body: bytes
    grant: Grant | None
    verdict: Verdict | None = None


class Judge:
    """Knows the keys, the budget and the sends that exist."""

    def __init__(self, config: SimulatorConfig, budget: SharedBudget, sends: Iterable[Enqueued]) -> None:
        """Take ``sends`` in; ``budget`` is charged by every request that has a good key."""
        self._config = config
        self._budget = budget
        self._allowed = f"Bearer {config.api_key}"
        self._forbidden = f"Bearer {config.forbidden_key}"
        self._sent_at: dict[str, dict[str, float | None]] = {}
        for each in sends:
            self._sent_at.setdefault(each.pair.campaign_id, {})[each.pair.send_id] = each.sent_at

    def judge(self, method: str, path: str, query: Mapping[str, str], *, authorization: str, now: float) -> Judgement:
        """Judge a request at ``now`` (epoch seconds). It is charged here, and never refused with an exception."""
        if authorization not in (self._allowed, self._forbidden):
            return Judgement(401, _told(f"Invalid API key: {authorization.removeprefix('Bearer ')}"), None)
        grant = self._budget.take(now)
        if not grant.allowed:
            return Judgement(429, _told("Rate limit exceeded"), grant)
        if (method, path) != ("GET", PATH):
            return Judgement(404, _told("Invalid URL"), grant)
        if authorization != self._allowed:
            return Judgement(403, _told("Access Denied"), grant)
        try:
            verdict, body = self._series(query, now)
        except BadQuestion as error:
            return Judgement(400, _told(str(error)), grant)
        return Judgement(200, body, grant, verdict)

    def _series(self, query: Mapping[str, str], now: float) -> tuple[Verdict, bytes]:
        sends = self._sent_at.get(query.get("campaign_id", ""))
        if sends is None:
            raise BadQuestion("Invalid Campaign ID")
        asked = question(query, now)
        return answer(
            asked, seed=self._config.seed, sent_at=sends.get(asked.send_id), now=now,
            unknown_pairs=self._config.unknown_pairs,
        )  # fmt: skip


def _told(message: str) -> bytes:
    return orjson.dumps({"message": message})
