"""Generates README.md and its pictures from the results: ``python -m benchmarks.report.report``.

``python -m benchmarks`` calls it after each benchmark. The page begins with the goals, and whether they are
reached. This file contains the goals and, where one is missed, the reason. The docstring of each benchmark is its
description.
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
README = HERE.parent / "README.md"

Results = dict[str, Any]
Row = dict[str, Any]
Figure = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal: its name, the function that finds its figure, its limit, and the reason if it is missed."""

    name: str
    find: Figure
    at_most: float | None = None
    at_least: float | None = None
    reason: str = ""

    def create_row(self, results: Results) -> Row | None:
        """Return the row of the goal, or None if its benchmark has no results."""
        found = self.find(results)
        if found is None:
            return None
        reached = (self.at_most is None or found <= self.at_most) and (self.at_least is None or found >= self.at_least)
        limit = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        answer = "yes" if reached else f"**no**: {self.reason}".rstrip(": ")
        return {"goal": self.name, "limit": limit, "measured": found, "reached": answer}


def select_rows(results: Results, table: str, **columns: Any) -> list[Row]:
    """Return the rows of a table whose columns have these values."""
    found = [row for each in results.values() for row in each["tables"].get(table, [])]
    return [row for row in found if all(row.get(name) == value for name, value in columns.items())]


def _find_worst(table: str, column: str, **columns: Any) -> Figure:
    """Return a function that finds the highest figure of a column."""

    def found(results: Results) -> float | None:
        return max((charts.parse_figure(row[column]) for row in select_rows(results, table, **columns)), default=None)

    return found


def _find_worst_of_harvester(column: str) -> Figure:
    """Return a function that finds harvester's worst figure of a column, in both tables of ``polite``."""

    def found(results: Results) -> float | None:
        both = [_find_worst("polite", column, client="harvester")(results), _find_worst("troubles", column)(results)]
        return max((each for each in both if each is not None), default=None)

    return found


def _compare_sizes(column: str) -> Figure:
    """Return a function that compares an operation in the largest ledger with one of 10,000 pairs."""

    def found(results: Results) -> float | None:
        small, all_sizes = select_rows(results, "ledger_growth", pairs=10_000), select_rows(results, "ledger_growth")
        return all_sizes[-1][column] / small[0][column] if small else None

    return found


def _find_now(table: str, figure: str, *, relative: bool = False) -> Figure:
    """Return a function that finds today's figure in a table of two versions, relative to 1268f99 if wanted."""

    def found(results: Results) -> float | None:
        for row in select_rows(results, table):
            if row["figure"].startswith(figure):
                now = charts.parse_figure(row["now"])
                return now / charts.parse_figure(row["1268f99"]) if relative else now
        return None

    return found


def _find_cost(figure: str) -> Figure:
    """Return a function that finds today's figure in the table of costs."""
    return _find_now("costs", figure)


def _compare_start(results: Results) -> float | None:
    found = {row["command"]: row["milliseconds"] for row in select_rows(results, "start")}
    return found["harvester --help"] / found['python -c "import aiohttp"'] if found else None


def _compare_times(column: str, *owners: int) -> Figure:
    """Return a function that finds PostgreSQL's longest time of a pair relative to SQLite's, with some owners."""

    def found(results: Results) -> float | None:
        rows = select_rows(results, "ledger_databases", database="PostgreSQL")
        return max((1 / row[column] for row in rows if row["owners"] in owners and column in row), default=None)

    return found


def _compare_owners(results: Results) -> float | None:
    """Return PostgreSQL's pairs per second with eight owners, relative to four, for 100,000 pairs."""
    four, eight = (
        select_rows(results, "ledger_databases", database="PostgreSQL", pairs=10**5, owners=owners) for owners in (4, 8)
    )
    return eight[0]["pairs per second"] / four[0]["pairs per second"] if four and eight else None


def _find_lowest(table: str, column: str, **columns: Any) -> Figure:
    """Return a function that finds the lowest figure of a column."""
    return lambda results: min((row[column] for row in select_rows(results, table, **columns)), default=None)


def _find_longest_call(results: Results) -> float | None:
    rows = select_rows(results, "longest_calls", database="PostgreSQL")
    return max((figure for row in rows for name, figure in row.items() if name.endswith(", s")), default=None)


LATE = "half a second is a tenth of these windows; the headers are outdated when they arrive, so harvester slows down"
CAMPAIGN = (
    "if a window has only 69 requests, a campaign can use the rest of it at once, and some requests that eight "
    "harvesters have in flight are then refused. None of the campaign's own requests is refused"
)
SMALL_WINDOWS = (
    "if eight harvesters send about 40 requests in five seconds, each of them must estimate its share from a "
    "few responses, and slows down; live sending is never refused"
)
INSTRUCTIONS = (
    "see Instructions: rows and the HTTP client cost as much as in the bare loop; the ledger, the list, compression, "
    "pacing and the engine, which the bare loop does not have, add half of that"
)
CORES = "the server runs on the same two cores; one process and the server already use more than one of them"
COLD_CACHES = (
    "requests that arrive a few at a time cost more, because caches are cold. The bare loop costs at least as much at "
    "this rate: see Cost at the default quota"
)
IMPORTS = (
    "imports take 66 MiB, 24 of them for shared libraries: SQLAlchemy 12, pydantic and the settings 12, asyncio 10, "
    "Python 9, aiohttp 8, other modules 15; the rest is open batches of up to 1,000 readings, threads, and what "
    "reading a list of 16,000 sends leaves behind"
)
START = (
    "92 % of the instructions are imports, counted with valgrind: SQLAlchemy 26 %, pydantic and the settings 19, "
    "aiohttp 12, asyncio 8, click and the command line 8, the tables and statements of the ledger 6"
)
FULL_COUNT = "measured before the ledger kept counts: it counted every pair, in 17 seconds in total"
DISK_WRITES = (
    "with ten million waiting pairs and none settled, it takes 7 ms and 34 reads per batch, as with 10,000 pairs; here "
    "it runs right after five million pairs were settled, and the disk is probably still writing them"
)
ONE_WORKSPACE = (
    "cProfile: 2.3 ms per pair instead of 1.7. Of the difference, 40 % is in rows (each counter is checked against the "
    "type of its column), 35 % around the request (its Date confirms the time, and its body is searched for the "
    "key), and 25 % in the lanes and the batch that all workspaces share"
)
OPEN_BATCH = (
    "a batch is open for ten seconds, so a kill repeats 345 requests on average, and those in flight; 1268f99 "
    "repeats 554"
)
UNCONFIRMED = (
    "seven are BEGIN, and two look for closed windows, because no response has confirmed the time in this scene"
)
SERVER_WORK = (
    "most of the time is CPU of the server: a third of it is entries of indexes, 11 % are the triggers that count "
    "pairs and the check of the foreign key, 10 % plans (perf). SQLite itself became slower, too, by the counts and by "
    "claims that are smaller than a batch"
)
TWO_CORES = (
    "eight owners and their server share two cores and use 1.87 of them, so each call has a quarter of a core; they "
    "wait 8 % of the time for locks. The longest call of four owners took 0.50 s with a million pairs, 0.43 s with "
    "100,000; of eight owners on SQLite, 5.3 s"
)
DEAD_ENTRIES = (
    "a day of readings takes seconds here, so autovacuum comes only three times in it. Vacuumed once an hour of that "
    "day, the size is 1.65 times the fresh one. The index pair_open has five times its fresh size in both cases, "
    "because each reading adds three entries in the same place within a moment; it hardly grows after two readings"
)
STAGED_ROWS = (
    "memory is limited to 512 MB, so the rows are written by column to temporary files and read again; DuckDB alone "
    "uses 2.6 GiB or runs out of memory. Of 71 s of CPU (DuckDB alone: 45), about 19 read JSON, 13 write the columns, "
    "15 check the parts and find the counters, 12 choose the newest rows, and 10 write the view"
)

_HOUR = {"rule": "line", "window, s": 3600}
_SECONDS = {"rule": "line", "window, s": 5}

GOALS = (
    Goal("own requests refused, in normal and difficult conditions", _find_worst_of_harvester("own 429s"), at_most=0),
    Goal("live requests refused, %", _find_worst_of_harvester("live requests refused"), at_most=0),
    Goal("pairs lost", _find_worst_of_harvester("pairs lost"), at_most=0),
    Goal(
        "time relative to the ideal, windows of 5 s",
        _find_worst("polite", "of the ideal", client="harvester"),
        at_most=1.1,
    ),
    Goal(
        "the same in difficult conditions, worst case",
        _find_worst("troubles", "of the ideal"),
        at_most=1.1,
        reason=LATE,
    ),
    Goal(
        "the same in windows of an hour, simulated, worst case",
        _find_worst("quota_simulation", "of the ideal", **_HOUR),
        at_most=1.05,
    ),
    Goal(
        "the same in windows of 69 requests in 5 s, simulated, worst case",
        _find_worst("quota_simulation", "of the ideal", **_SECONDS),
        at_most=1.1,
        reason=SMALL_WINDOWS,
    ),
    Goal(
        "own requests refused, simulated",
        _find_worst("quota_simulation", "own 429s", rule="line"),
        at_most=0,
        reason=CAMPAIGN,
    ),
    Goal(
        "live requests refused, simulated",
        _find_worst("quota_simulation", "live requests refused", rule="line"),
        at_most=0,
    ),
    Goal("time of a run of one pair relative to the bare loop", _find_cost("one pair"), at_most=1.3, reason=START),
    Goal("speed relative to the bare loop, 1,000 pairs", _find_cost("1,000 pairs"), at_least=0.8, reason=START),
    Goal("the same, 10,000 pairs", _find_cost("10,000 pairs"), at_least=1, reason=INSTRUCTIONS),
    Goal("time of harvester --help relative to import aiohttp", _compare_start, at_most=2),
    Goal("peak memory of 200,000 pairs relative to 10,000", _find_worst("memory", "times the first"), at_most=1.15),
    Goal(
        "speed of two processes on one ledger relative to one",
        _find_cost("two processes"),
        at_least=1.6,
        reason=CORES,
    ),
    Goal(
        "share of a core at 69 requests per second, %",
        _find_cost("at 69 requests per second: share"),
        at_most=3,
        reason=COLD_CACHES,
    ),
    Goal(
        "peak memory at 69 requests per second, MiB",
        _find_cost("at 69 requests per second: peak"),
        at_most=70,
        reason=IMPORTS,
    ),
    Goal(
        "seconds to the first request, with a million pairs in the ledger",
        _find_worst("ledger_growth", "first request, s", pairs=10**6),
        at_most=2,
    ),
    Goal(
        "time of claim in the largest ledger relative to 10,000 pairs",
        _compare_sizes("claim, us per pair"),
        at_most=1.5,
    ),
    Goal("the same for seal", _compare_sizes("seal, us per pair"), at_most=1.5),
    Goal("the same for status", _compare_sizes("status, us per pair"), at_most=1.5, reason=FULL_COUNT),
    Goal("the same for recovery", _compare_sizes("recover, us per pair"), at_most=1.5, reason=DISK_WRITES),
    Goal(
        "one workspace, pairs per CPU second relative to 1268f99",
        _find_now("workspaces_goals", "one workspace", relative=True),
        at_least=1,
        reason=ONE_WORKSPACE,
    ),
    Goal(
        "requests repeated by a kill, at 69 per second beside sick workspaces",
        _find_now("workspaces_goals", "requests repeated"),
        at_most=340,
        reason=OPEN_BATCH,
    ),
    Goal(
        "statements for three messages of a pair that is not due, 200 workspaces",
        _find_now("workspaces_goals", "statements"),
        at_most=30,
        reason=UNCONFIRMED,
    ),
    Goal(
        "seconds to the first request of a new list of a million sends or more", _find_cost("first request"), at_most=5
    ),
    Goal("PostgreSQL, one owner: time of a pair relative to SQLite", _compare_times("of SQLite", 1), at_most=2),
    Goal("the same, four owners and more", _compare_times("of SQLite", 4, 8), at_most=1, reason=TWO_CORES),
    Goal(
        "PostgreSQL, one owner: time of a pair relative to SQLite in 1268f99",
        _compare_times("of 1268f99", 1),
        at_most=2,
        reason=SERVER_WORK,
    ),
    Goal("the same, four owners and more", _compare_times("of 1268f99", 4, 8), at_most=1, reason=SERVER_WORK),
    Goal(
        "PostgreSQL, speed of eight owners relative to four, 100,000 pairs",
        _compare_owners,
        at_least=1,
        reason=TWO_CORES,
    ),
    Goal(
        "PostgreSQL, speed with a million pairs relative to 100,000, four owners",
        _find_lowest("ledger_sizes", "of the first", database="PostgreSQL"),
        at_least=0.7,
    ),
    Goal("PostgreSQL, longest call, s", _find_longest_call, at_most=0.5, reason=TWO_CORES),
    Goal(
        "PostgreSQL, size of a table after ten readings relative to a fresh one",
        _find_worst("bloat", "times fresh"),
        at_most=2,
        reason=DEAD_ENTRIES,
    ),
    Goal(
        "seconds until the workspaces of a killed replica are served",
        _find_worst("shares", "settled, s", event="one is killed"),
        at_most=90,
    ),
    Goal(
        "seconds until a new replica serves its share",
        _find_worst("shares", "settled, s", event="one starts"),
        at_most=30,
    ),
    Goal(
        "simulated replicas, late sends that an alert announced before the deadline, %",
        _find_lowest("breaking_points", "alerted, % of late"),
        at_least=100,
    ),
    Goal("time of latest relative to DuckDB alone", _find_cost("latest"), at_most=1.3, reason=STAGED_ROWS),
    Goal("latest, peak memory, MiB", _find_cost("the same: peak MiB"), at_most=700),
)

HOW = (
    "`python -m benchmarks` runs all benchmarks and generates this page. `--quick` runs smaller versions, and names of "
    "benchmarks select single ones. The alternatives are installed in separate environments in `benchmarks/.cache`."
)
TITLES = {
    "polite": "Beside live sending", "quota_simulation": "Beside live sending, simulated", "speed": "Speed",
    "costs": "Costs compared with an earlier version", "instructions": "Instructions",
    "two_processes": "Two processes", "many_workspaces": "Many workspaces",
    "default_rate": "Cost at the default quota", "ledger_growth": "Ledger growth",
    "ledger_databases": "The ledger in PostgreSQL", "ledger_size": "Size of the ledger",
    "soak": "Months of service",
    "replica_simulation": "Replicas, simulated", "replica_faults": "Replicas with random faults",
    "replicas": "Replicas",
    "latest_view": "Latest view",
}  # fmt: skip
PICTURES = {"polite": "polite.svg", "speed": "fast.svg", "ledger_growth": "growth.svg"}


def write(results: Results) -> None:
    """Write README.md and the pictures."""
    parts = [
        "# Benchmarks",
        HOW,
        format_table([row for goal in GOALS if (row := goal.create_row(results)) is not None]),
    ]
    for name, title in TITLES.items():
        if name not in results:
            continue
        found = results[name]
        description = ast.get_docstring(ast.parse((HERE.parent / "measure" / f"{name}.py").read_text())) or ""
        parts += [f"## {title}", description.replace("``", "`")]
        if name in PICTURES:
            parts.append(f"![{title}]({PICTURES[name]})")
        parts += [format_table(each) for each in found["tables"].values()]
        quick = ", **a quick run**" if found["quick"] else ""
        parts.append(f"*{found['taken']}{quick}; {found['machine']}; {found['versions']}.*")
    README.write_text("\n\n".join(parts) + "\n")
    _draw(results)


def _draw(results: Results) -> None:
    """Draw a picture for each of these benchmarks that has results."""
    if polite := select_rows(results, "polite"):
        columns = ("own 429s", "live requests refused", "pairs lost", "of the ideal")
        charts.draw_bars(
            README.with_name(PICTURES["polite"]), "Beside live sending: refused requests", polite, "client", columns
        )
    if speed := select_rows(results, "speed", pairs=1000):
        columns = ("pairs per second", "CPU seconds per 1,000 pairs", "peak MiB")
        charts.draw_bars(
            README.with_name(PICTURES["speed"]), "1,000 pairs without a limit, start to exit", speed, "client", columns
        )
    if growth := select_rows(results, "ledger_growth"):
        operations = [name for name in growth[0] if name.endswith("us per pair")]
        charts.draw_lines(
            README.with_name(PICTURES["ledger_growth"]),
            "Microseconds per pair, by pairs in the ledger",
            growth,
            "pairs",
            operations,
        )


def format_table(listed: list[Row]) -> str:
    """Format rows as a Markdown table; omits the column of exit codes if all are 0."""
    names = [name for name in listed[0] if name != "exit" or any(row["exit"] for row in listed)] if listed else []
    right = [not isinstance(listed[0][name], str) for name in names]
    lines = [names, ["---:" if each else "---" for each in right]]
    lines += [[charts.format_figure(row[name]) for name in names] for row in listed]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
