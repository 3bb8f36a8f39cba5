"""The effect on live sending: harvester and the alternatives do the same job beside a neighbour.

The stand-in API allows 500 requests in five seconds and responds after 5 ms. A neighbour, which represents live
sending, uses a fifth of this quota. All clients capture the same 3,000 pairs. The figures come from the stand-in's log.
``seconds`` is the time from its first response to its last. A pair is lost if it never got a usable response.

``of the ideal`` compares the time with that of a client that uses everything the neighbour leaves: down to the reserve
of 20 % for harvester, down to the last request for the others. A client that is much faster than the ideal took
requests that the neighbour needed. Slightly below 1 is possible, because the first and the last window count only in
part.

The alternatives are configured with the documented limit. In a second row, their limit leaves 20 % of the quota, which
is correct as long as the neighbour is steady. ``lowest left`` is the smallest quota that was left in any window.
harvester's reserve is 100 requests (20 in windows of a second). Requests that are in flight when it is reached may use
some of it.

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


def harvester_commands(count: int = 1) -> Commands:
    """Return the commands of uncoordinated harvesters, each with its own ledger and its share of the list."""

    def commands(url: str, pairs: Path, folder: Path) -> list[list[str]]:
        head, *lines = pairs.read_text().splitlines(keepends=True)
        started = []
        for at in range(count):
            share = folder / f"pairs-{at}.csv"
            share.write_text(head + "".join(lines[at::count]))
            started.append(run_process.harvester_command(url, share, folder / f"out-{at}"))
        return started

    return commands


def peer_commands(name: str, *options: str, max_requests: int = LIMIT) -> Commands:
    """Return the command of an alternative that may send at most ``max_requests`` in a window."""

    def commands(url: str, pairs: Path, folder: Path) -> list[list[str]]:
        return [
            run_process.peer_command(
                name, url, pairs, folder / "out", *options, max_requests=max_requests, seconds=WINDOW_SECONDS
            )
        ]

    return commands


def run_measured(commands: Commands, *, pairs: int, reserve: float, **stand_in: Any) -> Row:
    """Start a job at the beginning of a window; return its figures from the stand-in's log."""
    share = stand_in.setdefault("neighbour_share", SHARE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        list_file, log = folder / "pairs.csv", folder / "responses.ndjson"
        settings = {
            "pairs": pairs,
            "limit": LIMIT,
            "window_seconds": WINDOW_SECONDS,
            "latency_seconds": 0.005,
            "pairs_csv": str(list_file),
            "log": str(log),
        }
        with run_process.start_server("stand_in_server.py", settings | stand_in) as server:
            ready = commands(server.url, list_file, folder)
            time.sleep(WINDOW_SECONDS - time.time() % WINDOW_SECONDS)
            usage = run_process.run(*ready)
            counts = json.loads(server.stop())
        responses = [json.loads(line) for line in log.open()]
        lost = _load_pairs(list_file) - {
            (each["campaign_id"], each["send_id"]) for each in responses if each["verdict"]
        }
    seconds = responses[-1]["at"] - responses[0]["at"]
    ideal = pairs / (LIMIT * (1 - share - reserve)) * WINDOW_SECONDS
    return {
        "seconds": seconds,
        "of the ideal": seconds / ideal,
        "own 429s": sum(each["status"] == 429 for each in responses),
        "pairs lost": len(lost),
        "live requests refused": f"{counts['neighbour_refused'] / max(1, counts['neighbour_requests']):.1%}",
        "lowest left": counts["lowest_remaining"],
        "exit": max((each.status for each in usage), key=abs),
    }


def _load_pairs(path: Path) -> set[tuple[str, str]]:
    with path.open(newline="") as file:
        return {(row["campaign_id"], row["send_id"]) for row in csv.DictReader(file)}


def compare_clients(*, quick: bool = False) -> Iterator[Row]:
    """Compare harvester with the alternatives."""
    pairs, lower_limit = 900 if quick else 3000, round(LIMIT * (1 - RESERVE))
    yield {"client": "harvester"} | run_measured(harvester_commands(), pairs=pairs, reserve=RESERVE)
    for title, commands in {
        "aiohttp + aiolimiter + tenacity": peer_commands("limiter"),
        "aiohttp + aiolimiter + tenacity, limit set to leave 20 %": peer_commands("limiter", max_requests=lower_limit),
        "Scrapy, AutoThrottle": peer_commands("scrapy_crawl"),
        "Scrapy, AutoThrottle, 8 requests in flight": peer_commands("scrapy_crawl", "8"),
        "dlt, REST client": peer_commands("dlt_rest"),
        "Crawlee, HttpCrawler": peer_commands("crawlee_http"),
        "Crawlee, HttpCrawler, limit set to leave 20 %": peer_commands("crawlee_http", max_requests=lower_limit),
        "Airbyte CDK, API budget": peer_commands("airbyte_source"),
        "Airbyte CDK, API budget, limit set to leave 20 %": peer_commands("airbyte_source", max_requests=lower_limit),
    }.items():
        yield {"client": title} | run_measured(commands, pairs=pairs, reserve=0.0)


def run_difficult_conditions(*, quick: bool = False) -> Iterator[Row]:
    """Run harvester beside other harvesters, irregular neighbours, and servers with wrong or late responses."""
    pairs = 900 if quick else 3000
    faulty = {"fault_rate": 0.3}
    for title, count, stand_in in (
        ("2 uncoordinated harvesters", 2, {}),
        ("4 harvesters", 4, {}),
        ("8 harvesters", 8, {}),
        ("a bursty neighbour", 1, {"neighbour": "bursty"}),
        ("4 harvesters, a bursty neighbour", 4, {"neighbour": "bursty"}),
        ("a campaign late in the window", 1, {"neighbour": "campaign"}),
        ("4 harvesters, a campaign late in the window", 4, {"neighbour": "campaign"}),
        ("3 of 10 responses without headers", 1, faulty | {"faults": ["headers_missing"]}),
        ("3 of 10 responses with empty or invalid headers", 1, faulty | {"faults": ["headers_empty", "reset_text"]}),
        ("3 of 10 responses half a second late and out of order", 1, faulty | {"faults": ["late"]}),
        ("the server's clock an hour ahead", 1, {"clock_ahead_seconds": 3600.0}),
        ("the server's clock an hour behind", 1, {"clock_ahead_seconds": -3600.0}),
        ("windows of one second, a fifth of the quota", 1, {"window_seconds": 1.0, "limit": LIMIT // 5}),
    ):
        yield {"condition": title} | run_measured(harvester_commands(count), pairs=pairs, reserve=RESERVE, **stand_in)


def measure(*, quick: bool = False) -> Iterator[tuple[str, Row]]:
    """Yield the rows of both tables."""
    for row in compare_clients(quick=quick):
        yield "polite", row
    for row in run_difficult_conditions(quick=quick):
        yield "troubles", row
