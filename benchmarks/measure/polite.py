"""The effect on live sending: harvester and the alternatives do the same job beside a neighbour.

The stand-in API allows 500 requests in five seconds and responds after 5 ms. A neighbour, which represents live
sending, uses a fifth of this quota. All clients capture the same 3,000 pairs. The figures come from the stand-in's log.
``seconds`` is the time from its first response to its last. A pair is lost if it never got a usable response. ``of the
ideal`` compares the time with that of a client that uses everything the neighbour leaves: down to the reserve of 20 %
for harvester, down to the last request for the others. The alternatives are configured with the documented limit and,
in a second row, with a limit that leaves 20 %, which is correct as long as the neighbour is steady. A client that is
much faster than the ideal took requests that the neighbour needed. Slightly below 1 is possible, because the first and
the last window count only in part. ``lowest left`` is the smallest quota that was left in any window. harvester's
reserve is 100 (20 in windows of a second); requests that are in flight when it is reached may use some of it.

The second table shows harvester in difficult conditions: other harvesters that use the same quota, irregular
neighbours, and a server that responds late or without headers.
"""

import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.runtime import run_process

LIMIT, WINDOW_SECONDS = 500, 5.0
SHARE = RESERVE = 0.2

Commands = Callable[[str, Path, Path], list[list[str]]]
Row = dict[str, Any]


def harvesters(count: int = 1) -> Commands:
    """Give the commands of harvesters that do not know of each other, each with its own ledger and part of the list."""

    def commands(url: str, pairs: Path, folder: Path) -> list[list[str]]:
        head, *lines = pairs.read_text().splitlines(keepends=True)
        started = []
        for at in range(count):
            mine = folder / f"pairs-{at}.csv"
            mine.write_text(head + "".join(lines[at::count]))
            started.append(run_process.harvester(url, mine, folder / f"out-{at}"))
        return started

    return commands


def peer(name: str, *options: str, max_requests: int = LIMIT) -> Commands:
    """Give the command of a peer that may make at most ``max_requests`` in a window."""

    def commands(url: str, pairs: Path, folder: Path) -> list[list[str]]:
        return [
            run_process.peer(
                name, url, pairs, folder / "out", *options, max_requests=max_requests, seconds=WINDOW_SECONDS
            )
        ]

    return commands


def watched(commands: Commands, *, pairs: int, reserve: float, **stand_in: Any) -> Row:
    """Start a job just after a window began; return the stand-in's record of it."""
    share = stand_in.setdefault("neighbour_share", SHARE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed, log = folder / "pairs.csv", folder / "answers.ndjson"
        given = {
            "pairs": pairs,
            "limit": LIMIT,
            "window_seconds": WINDOW_SECONDS,
            "latency_seconds": 0.005,
            "pairs_csv": str(listed),
            "log": str(log),
        }
        with run_process.serving("stand_in_server.py", given | stand_in) as server:
            ready = commands(server.url, listed, folder)
            time.sleep(WINDOW_SECONDS - time.time() % WINDOW_SECONDS)
            used = run_process.run(*ready)
            books = json.loads(server.stop())
        answers = [json.loads(line) for line in log.open()]
        lost = _listed(listed) - {(each["campaign_id"], each["send_id"]) for each in answers if each["verdict"]}
    seconds = answers[-1]["at"] - answers[0]["at"]
    ideal = pairs / (LIMIT * (1 - share - reserve)) * WINDOW_SECONDS
    return {
        "seconds": seconds,
        "of the ideal": seconds / ideal,
        "own 429s": sum(each["status"] == 429 for each in answers),
        "pairs lost": len(lost),
        "live requests refused": f"{books['neighbour_refused'] / max(1, books['neighbour_requests']):.1%}",
        "lowest left": books["lowest_remaining"],
        "exit": max((each.status for each in used), key=abs),
    }


def _listed(path: Path) -> set[tuple[str, str]]:
    with path.open(newline="") as file:
        return {(row["campaign_id"], row["send_id"]) for row in csv.DictReader(file)}


def clients(*, quick: bool = False) -> Iterator[Row]:
    """Compare the harvester with its peers."""
    pairs, less = 900 if quick else 3000, round(LIMIT * (1 - RESERVE))
    yield {"client": "harvester"} | watched(harvesters(), pairs=pairs, reserve=RESERVE)
    for title, commands in {
        "aiohttp + aiolimiter + tenacity": peer("limiter"),
        "aiohttp + aiolimiter + tenacity, limit set to leave 20 %": peer("limiter", max_requests=less),
        "Scrapy, AutoThrottle": peer("scrapy_crawl"),
        "Scrapy, AutoThrottle, 8 requests in flight": peer("scrapy_crawl", "8"),
        "dlt, REST client": peer("dlt_rest"),
        "Crawlee, HttpCrawler": peer("crawlee_http"),
        "Crawlee, HttpCrawler, limit set to leave 20 %": peer("crawlee_http", max_requests=less),
        "Airbyte CDK, API budget": peer("airbyte_source"),
        "Airbyte CDK, API budget, limit set to leave 20 %": peer("airbyte_source", max_requests=less),
    }.items():
        yield {"client": title} | watched(commands, pairs=pairs, reserve=0.0)


def troubles(*, quick: bool = False) -> Iterator[Row]:
    """Make it harder for harvester: other harvesters, rougher neighbours, missing or late headers."""
    pairs = 900 if quick else 3000
    faulty = {"fault_rate": 0.3}
    for title, count, stand_in in (
        ("2 harvesters that do not know of each other", 2, {}),
        ("4 harvesters", 4, {}),
        ("8 harvesters", 8, {}),
        ("a neighbour that bursts", 1, {"neighbour": "bursty"}),
        ("4 harvesters, a neighbour that bursts", 4, {"neighbour": "bursty"}),
        ("a campaign late in the window", 1, {"neighbour": "campaign"}),
        ("4 harvesters, a campaign late in the window", 4, {"neighbour": "campaign"}),
        ("3 of 10 responses without headers", 1, faulty | {"faults": ["headers_missing"]}),
        ("3 of 10 responses with empty or absurd headers", 1, faulty | {"faults": ["headers_empty", "reset_text"]}),
        ("3 of 10 responses half a second late, so out of order", 1, faulty | {"faults": ["late"]}),
        ("the server's clock an hour ahead", 1, {"clock_ahead_seconds": 3600.0}),
        ("the server's clock an hour behind", 1, {"clock_ahead_seconds": -3600.0}),
        ("five times as many windows, of a second", 1, {"window_seconds": 1.0, "limit": LIMIT // 5}),
    ):
        yield {"trouble": title} | watched(harvesters(count), pairs=pairs, reserve=RESERVE, **stand_in)


def measure(*, quick: bool = False) -> Iterator[tuple[str, Row]]:
    """Give the rows of both tables as they come."""
    for row in clients(quick=quick):
        yield "polite", row
    for row in troubles(quick=quick):
        yield "troubles", row
