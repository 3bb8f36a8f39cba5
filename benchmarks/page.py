"""Turns results into the page and its pictures: ``python benchmarks/page.py``, or ``all.py`` when it has measured.

It measures nothing. What was promised stands first, kept or not. Why something is not kept is known to people only: it
is written here beside the promise. What a benchmark does is said by its own first lines.
"""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import picture

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"

Results = dict[str, Any]
Row = dict[str, Any]
Found = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure we want, how to find it, how much at the most or at the least, and why it is not reached."""

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
        kept = (self.most is None or found <= self.most) and (self.least is None or found >= self.least)
        wanted = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        answer = "yes" if kept else f"**no**: {self.why_not}".rstrip(": ")
        return {"promise": self.of, "wanted": wanted, "found": found, "kept": answer}


def rows(results: Results, table: str, **wanted: Any) -> list[Row]:
    """Give the rows of a table that have these values."""
    found = [row for each in results.values() for row in each["tables"].get(table, [])]
    return [row for row in found if all(row.get(name) == value for name, value in wanted.items())]


def _worst(table: str, column: str, **wanted: Any) -> Found:
    """Find the highest figure of a column."""

    def found(results: Results) -> float | None:
        return max((picture.number(row[column]) for row in rows(results, table, **wanted)), default=None)

    return found


def _ours(column: str) -> Found:
    """Find a column's worst figure of harvesters, alone and in trouble."""

    def found(results: Results) -> float | None:
        both = [_worst("polite", column, client="harvester")(results), _worst("troubles", column)(results)]
        return max((each for each in both if each is not None), default=None)

    return found


def _grown(column: str) -> Found:
    """Tell how many times as much a verb takes in the largest ledger as in one of 10,000 pairs."""

    def found(results: Results) -> float | None:
        small, all_sizes = rows(results, "growth", pairs=10_000), rows(results, "growth")
        return all_sizes[-1][column] / small[0][column] if small else None

    return found


def _speed(pairs: int) -> Found:
    """Find the harvester's speed in that of the bare loop."""
    return _worst("speed", "of the bare loop", client="harvester", pairs=pairs)


def _slower(results: Results) -> float | None:
    ways = {row["way"]: row["seconds"] for row in rows(results, "latest") if not row["exit"]}
    ours = ways.pop("harvester latest", None)
    return ours / min(ways.values()) if ours and ways else None


def _times_import(results: Results) -> float | None:
    found = {row["command"]: row["milliseconds"] for row in rows(results, "start")}
    return found["harvester --help"] / found['python -c "import aiohttp"'] if found else None


LATE = "half a second is a tenth of these windows: what answers tell is old by then, and we hold back for it"
SUDDEN = (
    "where a window has 69 calls, a campaign takes in a moment what is left of it; of eight harvesters' calls that are "
    "in flight then, some come too late. The campaign's are all answered"
)
COARSE = (
    "where eight harvesters make some 40 calls in five seconds, each knows its share from one or two, and caution "
    "wins; live sending is never refused"
)
WIRE = (
    "py-spy on 10,000 pairs, main thread: the HTTP client 36 %, rows 32 %, start and imports 13 %, pacing 6 %, event "
    "loop 6 %, handing rows over 4 %; beside it, the ledger's thread takes the interpreter's lock now and then"
)
CORES = "the two cores carry the server too; one process and the server already keep more than one of them busy"
IDLE = (
    "calls that come a few at a time cost more than many: caches are cold; samples: the HTTP client and its callbacks "
    "44 %, rows 21 %, loop 10 %"
)
IMPORTS = (
    "what is imported holds 70 MiB: aiohttp 14, SQLAlchemy 11, pydantic 10, Python 9, asyncio 8, structlog 5; the rest "
    "is batches in the making, of up to 1,000 readings"
)
SCANNED = "it counts every pair: 17 seconds in all, of an index that no cache of SQLite's holds"
WRITTEN = (
    "with ten million pairs waiting and none settled it takes 7 ms a batch and 34 reads, as with 10,000; here it comes "
    "right after five million were settled, and we think that the disk is still writing them"
)
TWICE = (
    "the parts are read twice, to find every counter that any of them has, and what 512 MB don't hold goes to disk, "
    "where DuckDB alone takes 2.6 GiB or ends for want of memory"
)

PROMISES = (
    Promise("own calls refused, alone and in trouble", _ours("own 429s"), most=0),
    Promise("neighbour's calls refused, %", _ours("neighbour's calls refused"), most=0),
    Promise("pairs lost", _ours("pairs lost"), most=0),
    Promise("time of the ideal, windows of 5 s", _worst("polite", "of the ideal", client="harvester"), most=1.1),
    Promise("the same in trouble, the worst", _worst("troubles", "of the ideal"), most=1.1, why_not=LATE),
    Promise(
        "the same in windows of an hour, simulated, the worst",
        _worst("budget", "of the ideal", **{"rule": "line", "window, s": 3600}), most=1.05,
    ),
    Promise(
        "the same in windows of 69 calls in 5 s, simulated, the worst",
        _worst("budget", "of the ideal", **{"rule": "line", "window, s": 5}), most=1.1, why_not=COARSE,
    ),
    Promise("own calls refused, simulated", _worst("budget", "own 429s", rule="line"), most=0, why_not=SUDDEN),
    Promise(
        "neighbour's calls refused, simulated", _worst("budget", "neighbour's calls refused", rule="line"), most=0,
    ),
    Promise("of the bare loop's speed, 10,000 pairs", _speed(10_000), least=1, why_not=WIRE),
    Promise("the same, 100,000 pairs", _speed(100_000), least=1, why_not=WIRE),
    Promise("harvester --help, times import aiohttp", _times_import, most=2),
    Promise("peak memory of 200,000 pairs, times that of 10,000", _worst("memory", "times the first"), most=1.15),
    Promise("two processes on one ledger, times one", _worst("together", "times one process", processes=2), least=1.7,
            why_not=CORES),
    Promise("share of a core at 69 calls a second, %", _worst("default_budget", "% of one core"), most=5, why_not=IDLE),
    Promise("peak memory at 69 calls a second, MiB", _worst("default_budget", "peak MiB"), most=80, why_not=IMPORTS),
    Promise("seconds to the first call, a ledger of a million", _worst("growth", "first call, s", pairs=10**6), most=2),
    Promise("claim in the largest ledger, times that in 10,000", _grown("claim, us a pair"), most=1.5),
    Promise("seal, likewise", _grown("seal, us a pair"), most=1.5),
    Promise("status, likewise", _grown("status, us a pair"), most=1.5, why_not=SCANNED),
    Promise("recovery, likewise", _grown("recover, us a pair"), most=1.5, why_not=WRITTEN),
    Promise("latest, times DuckDB alone", _slower, most=1.2, why_not=TWICE),
    Promise("latest, peak memory, MiB", _worst("latest", "peak MiB", way="harvester latest"), most=700),
)  # fmt: skip

HOW = (
    "`python benchmarks/all.py` runs all of this and writes this page; `--quick` and single names run less. "
    "The peers are installed into environments of their own, in `benchmarks/.cache`."
)
TITLES = {
    "polite": "Polite", "budget": "Polite, on virtual time", "speed": "Fast", "together": "Together",
    "default_budget": "Idle", "growth": "Growing", "latest": "Reading",
}  # fmt: skip
PICTURES = {"polite": "polite.svg", "speed": "fast.svg", "growth": "growth.svg"}


def write(results: Results) -> None:
    """Write the page and the pictures."""
    parts = [
        "# Benchmarks",
        HOW,
        table([row for promise in PROMISES if (row := promise.row(results)) is not None]),
    ]
    for name, title in TITLES.items():
        if name not in results:
            continue
        found = results[name]
        says = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""
        parts += [f"## {title}", says.replace("``", "`")]
        if name in PICTURES:
            parts.append(f"![{title}]({PICTURES[name]})")
        parts += [table(each) for each in found["tables"].values()]
        quick = ", **a quick run**" if found["quick"] else ""
        parts.append(f"*{found['taken']}{quick}; {found['machine']}; {found['versions']}.*")
    (HERE / "README.md").write_text("\n\n".join(parts) + "\n")
    _draw(results)


def _draw(results: Results) -> None:
    """Draw what was measured."""
    if polite := rows(results, "polite"):
        columns = ("own 429s", "neighbour's calls refused", "pairs lost", "of the ideal")
        picture.bars(HERE / PICTURES["polite"], "Beside live sending: who is refused", polite, "client", columns)
    if speed := rows(results, "speed", pairs=1000):
        columns = ("pairs a second", "CPU seconds per 1,000 pairs", "peak MiB")
        picture.bars(HERE / PICTURES["speed"], "1,000 pairs without a limit, start to exit", speed, "client", columns)
    if growth := rows(results, "growth"):
        verbs = [name for name in growth[0] if name.endswith("us a pair")]
        picture.lines(HERE / PICTURES["growth"], "Microseconds a pair, by pairs in the ledger", growth, "pairs", verbs)


def table(listed: list[Row]) -> str:
    """Give rows as Markdown; a column of exit codes is left out where all went well."""
    names = [name for name in listed[0] if name != "exit" or any(row["exit"] for row in listed)] if listed else []
    right = [not isinstance(listed[0][name], str) for name in names]
    lines = [names, ["---:" if each else "---" for each in right]]
    lines += [[picture.told(row[name]) for name in names] for row in listed]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
