"""Checks the requests of a test from outside: the quota of each workspace, and the times of captures.

It uses only the logs of the stand-in, and the rows of captures.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from benchmarks.torture.check_output import CheckFailed, Pair, Reading

SLACK_SECONDS = 10.0
"""How far the time of a capture may be from that of its response: clocks differ by seconds, and processes wait."""


def check_quota(log: Path, *, limit: int, reserve: int, window_seconds: float) -> int:
    """Check that a workspace kept its reserve, and return the lowest number of requests that was left.

    ``limit`` is the number of requests in a window. Raises ``CheckFailed``.
    """
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    charged = [line for line in lines if line["remaining"] is not None]
    refused = sum(line["status"] == 429 for line in charged)
    by_window = Counter(line["at"] // window_seconds for line in charged)
    left = min([limit - max(by_window.values(), default=0), *(line["remaining"] for line in charged)])
    if refused or left < reserve:
        raise CheckFailed(
            f"{log.name}: the reserve of {reserve} requests was used: {left} were left, and {refused} were refused; "
            f"requests by window: {sorted(by_window.items())}"
        )
    return left


def check_deadlines(log: Path, deadlines: Mapping[Pair, float]) -> float:
    """Check that no pair was requested after its deadline, and return the shortest time that was left, in seconds.

    It is infinite if no pair has a deadline. Raises ``CheckFailed``.
    """
    left: dict[Pair, float] = {}
    for line in map(json.loads, log.read_bytes().splitlines()):
        pair = (line["campaign_id"], line["send_id"])
        if pair in deadlines and line["verdict"]:
            left[pair] = min(left.get(pair, float("inf")), deadlines[pair] - line["at"])
    late = {pair: seconds for pair, seconds in left.items() if seconds < 0}
    if late:
        raise CheckFailed(f"requested after the deadline: {sorted(late.items())[:3]} ({len(late)})")
    return min(left.values(), default=float("inf"))


def check_times(logs: Sequence[Path], captured_at: Mapping[Reading, float]) -> None:
    """Check that each capture has a usable response at its time. Raises ``CheckFailed``."""
    answered: defaultdict[Pair, list[float]] = defaultdict(list)
    for line in chain.from_iterable(map(json.loads, log.read_bytes().splitlines()) for log in logs):
        if line["verdict"]:
            answered[line["campaign_id"], line["send_id"]].append(line["at"])
    wrong = {
        reading: at
        for reading, at in captured_at.items()
        if not any(abs(at - each) < SLACK_SECONDS for each in answered[reading[:2]])
    }
    if wrong:
        raise CheckFailed(f"captured at a time without a response: {sorted(wrong.items())[:3]} ({len(wrong)})")
