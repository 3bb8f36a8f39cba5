"""Turns results into the page and its pictures: ``python -m benchmarks.report.report``.

It measures nothing; ``python -m benchmarks`` calls it after a measurement. The page begins with the goals, reached or
not. The reason why a goal is not reached stands here, beside the goal. The first lines of each benchmark describe it.
"""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import charts

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "README.md"

Results = dict[str, Any]
Row = dict[str, Any]
Found = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach: its name, how to find it, its limit, and why it is not reached."""

    of: str
    found: Found
    most: float | None = None
    least: float | None = None
    why_not: str = ""

    def row(self, results: Results) -> Row | None:
        """Give its row, or None where nothing was measured."""
        found = self.found(results)
        if found is None:
            return None
        reached = (self.most is None or found <= self.most) and (self.least is None or found >= self.least)
        wanted = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        answer = "yes" if reached else f"**no**: {self.why_not}".rstrip(": ")
        return {"goal": self.of, "wanted": wanted, "found": found, "reached": answer}


def rows(results: Results, table: str, **wanted: Any) -> list[Row]:
    """Give the rows of a table that have these values."""
    found = [row for each in results.values() for row in each["tables"].get(table, [])]
    return [row for row in found if all(row.get(name) == value for name, value in wanted.items())]


def _worst(table: str, column: str, **wanted: Any) -> Found:
    """Find the highest figure of a column."""

    def found(results: Results) -> float | None:
        return max((charts.number(row[column]) for row in rows(results, table, **wanted)), default=None)

    return found


def _ours(column: str) -> Found:
    """Find a column's worst figure of harvesters, alone and in trouble."""

    def found(results: Results) -> float | None:
        both = [_worst("polite", column, client="harvester")(results), _worst("troubles", column)(results)]
        return max((each for each in both if each is not None), default=None)

    return found


def _grown(column: str) -> Found:
    """Compare an operation in the largest ledger with the same in one of 10,000 pairs."""

    def found(results: Results) -> float | None:
        small, all_sizes = rows(results, "ledger_growth", pairs=10_000), rows(results, "ledger_growth")
        return all_sizes[-1][column] / small[0][column] if small else None

    return found


def _speed(pairs: int) -> Found:
    """Find the harvester's speed in that of the bare loop."""
    return _worst("speed", "of the bare loop", client="harvester", pairs=pairs)


def _slower(results: Results) -> float | None:
    ways = {row["way"]: row["seconds"] for row in rows(results, "latest_view") if not row["exit"]}
    ours = ways.pop("harvester latest", None)
    return ours / min(ways.values()) if ours and ways else None


def _times_import(results: Results) -> float | None:
    found = {row["command"]: row["milliseconds"] for row in rows(results, "start")}
    return found["harvester --help"] / found['python -c "import aiohttp"'] if found else None


LATE = "half a second is a tenth of these windows: the headers are outdated when they arrive, so harvester holds back"
SUDDEN = (
    "if a window has only 69 requests, a campaign uses the rest of it in a moment, and some requests that eight "
    "harvesters have in flight then arrive too late. None of the campaign's own requests is refused"
)
COARSE = (
    "if eight harvesters send about 40 requests in five seconds, each of them must infer its share from a few "
    "responses, and is cautious; live sending is never refused"
)
WIRE = (
    "py-spy on 10,000 pairs, main thread: HTTP client 36 %, rows 32 %, start and imports 13 %, pacing 6 %, event loop "
    "6 %, passing on rows 4 %; in addition, the ledger's thread sometimes holds the interpreter's lock"
)
CORES = "the server runs on the same two cores; one process and the server already use more than one of them"
IDLE = (
    "requests that arrive a few at a time cost more, because caches are cold; samples: HTTP client and callbacks "
    "44 %, rows 21 %, event loop 10 %"
)
IMPORTS = (
    "imports take 70 MiB: aiohttp 14, SQLAlchemy 11, pydantic 10, Python 9, asyncio 8, structlog 5; the rest is open "
    "batches of up to 1,000 readings"
)
SCANNED = "it counts every pair, in 17 seconds in total, from an index that is larger than SQLite's cache"
WRITTEN = (
    "with ten million waiting pairs and none settled, it takes 7 ms and 34 reads per batch, as with 10,000 pairs; here "
    "it runs right after five million pairs were settled, and the disk is probably still writing them"
)
TWICE = (
    "the parts are read twice, to find every counter, and data above 512 MB is written to disk, whereas DuckDB alone "
    "uses 2.6 GiB or runs out of memory"
)

_HOUR = {"rule": "line", "window, s": 3600}
_SECONDS = {"rule": "line", "window, s": 5}

GOALS = (
    Goal("own requests refused, in normal and difficult conditions", _ours("own 429s"), most=0),
    Goal("live requests refused, %", _ours("live requests refused"), most=0),
    Goal("pairs lost", _ours("pairs lost"), most=0),
    Goal("time relative to the ideal, windows of 5 s", _worst("polite", "of the ideal", client="harvester"), most=1.1),
    Goal("the same in difficult conditions, worst case", _worst("troubles", "of the ideal"), most=1.1, why_not=LATE),
    Goal(
        "the same in windows of an hour, simulated, worst case",
        _worst("quota_simulation", "of the ideal", **_HOUR),
        most=1.05,
    ),
    Goal(
        "the same in windows of 69 requests in 5 s, simulated, worst case",
        _worst("quota_simulation", "of the ideal", **_SECONDS),
        most=1.1,
        why_not=COARSE,
    ),
    Goal(
        "own requests refused, simulated",
        _worst("quota_simulation", "own 429s", rule="line"),
        most=0,
        why_not=SUDDEN,
    ),
    Goal("live requests refused, simulated", _worst("quota_simulation", "live requests refused", rule="line"), most=0),
    Goal("speed relative to the bare loop, 10,000 pairs", _speed(10_000), least=1, why_not=WIRE),
    Goal("the same, 100,000 pairs", _speed(100_000), least=1, why_not=WIRE),
    Goal("time of harvester --help relative to import aiohttp", _times_import, most=2),
    Goal("peak memory of 200,000 pairs relative to 10,000", _worst("memory", "times the first"), most=1.15),
    Goal(
        "speed of two processes on one ledger relative to one",
        _worst("two_processes", "times one process", processes=2),
        least=1.7,
        why_not=CORES,
    ),
    Goal("share of a core at 69 requests per second, %", _worst("default_rate", "% of one core"), most=5, why_not=IDLE),
    Goal("peak memory at 69 requests per second, MiB", _worst("default_rate", "peak MiB"), most=80, why_not=IMPORTS),
    Goal(
        "seconds to the first request, with a million pairs in the ledger",
        _worst("ledger_growth", "first request, s", pairs=10**6),
        most=2,
    ),
    Goal("time of claim in the largest ledger relative to 10,000 pairs", _grown("claim, us per pair"), most=1.5),
    Goal("the same for seal", _grown("seal, us per pair"), most=1.5),
    Goal("the same for status", _grown("status, us per pair"), most=1.5, why_not=SCANNED),
    Goal("the same for recovery", _grown("recover, us per pair"), most=1.5, why_not=WRITTEN),
    Goal("time of latest relative to DuckDB alone", _slower, most=1.2, why_not=TWICE),
    Goal("latest, peak memory, MiB", _worst("latest_view", "peak MiB", way="harvester latest"), most=700),
)

HOW = (
    "`python -m benchmarks` runs all benchmarks and generates this page. `--quick` runs smaller versions, and names of "
    "benchmarks select single ones. The alternatives are installed in separate environments in `benchmarks/.cache`."
)
TITLES = {
    "polite": "Beside live sending", "quota_simulation": "Beside live sending, simulated", "speed": "Speed",
    "two_processes": "Two processes", "default_rate": "Cost at the default quota", "ledger_growth": "Ledger growth",
    "latest_view": "Latest view",
}  # fmt: skip
PICTURES = {"polite": "polite.svg", "speed": "fast.svg", "ledger_growth": "growth.svg"}


def write(results: Results) -> None:
    """Write the page and the pictures."""
    parts = [
        "# Benchmarks",
        HOW,
        table([row for goal in GOALS if (row := goal.row(results)) is not None]),
    ]
    for name, title in TITLES.items():
        if name not in results:
            continue
        found = results[name]
        description = ast.get_docstring(ast.parse((HERE.parent / "measure" / f"{name}.py").read_text())) or ""
        parts += [f"## {title}", description.replace("``", "`")]
        if name in PICTURES:
            parts.append(f"![{title}]({PICTURES[name]})")
        parts += [table(each) for each in found["tables"].values()]
        quick = ", **a quick run**" if found["quick"] else ""
        parts.append(f"*{found['taken']}{quick}; {found['machine']}; {found['versions']}.*")
    PAGE.write_text("\n\n".join(parts) + "\n")
    _draw(results)


def _draw(results: Results) -> None:
    """Draw what was measured."""
    if polite := rows(results, "polite"):
        columns = ("own 429s", "live requests refused", "pairs lost", "of the ideal")
        charts.bars(
            PAGE.with_name(PICTURES["polite"]), "Beside live sending: who is refused", polite, "client", columns
        )
    if speed := rows(results, "speed", pairs=1000):
        columns = ("pairs per second", "CPU seconds per 1,000 pairs", "peak MiB")
        charts.bars(
            PAGE.with_name(PICTURES["speed"]), "1,000 pairs without a limit, start to exit", speed, "client", columns
        )
    if growth := rows(results, "ledger_growth"):
        operations = [name for name in growth[0] if name.endswith("us per pair")]
        charts.lines(
            PAGE.with_name(PICTURES["ledger_growth"]),
            "Microseconds per pair, by pairs in the ledger",
            growth,
            "pairs",
            operations,
        )


def _bars(name: str, title: str, listed: list[Row], columns: tuple[str, ...]) -> None:
    """Draw a picture of one table, a bar for each client."""
    charts.bars(PAGE.with_name(PICTURES[name]), title, listed, "client", columns)


def table(listed: list[Row]) -> str:
    """Give rows as Markdown; a column of exit codes is left out where all went well."""
    names = [name for name in listed[0] if name != "exit" or any(row["exit"] for row in listed)] if listed else []
    right = [not isinstance(listed[0][name], str) for name in names]
    lines = [names, ["---:" if each else "---" for each in right]]
    lines += [[charts.format_figure(row[name]) for name in names] for row in listed]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
