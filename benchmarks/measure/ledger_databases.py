"""The ledger in PostgreSQL compared with SQLite, with one or more owners, and with other queues on the same server.

Each owner is a process with its own connection. They enqueue pairs of one workspace in pages of 2,000, claim 250
readings at a time, and seal and store batches of 1,000, with 600 bytes of rows for each. No request is made, so this is
the cost of the ledger alone. The server has its default settings and writes every commit to disk, as SQLite does; its
clients use its socket.

Microseconds per pair are the times of the calls of all owners, divided by the pairs and the owners. ``pairs per
second`` counts the whole work. Both databases run in turn; figures are medians of the turns, and the longest calls are
those of all turns. ``of SQLite`` compares pairs per second in the same turn.

Bloat: every pair is read ten times, once a day; the sends are spread over a day. The benchmark captures the readings of
a day in seconds, so autovacuum checks the tables every second instead of every minute. ``times fresh`` compares the
size of a table and its indexes with their size after ``VACUUM FULL``.

The other queues do less: procrastinate keeps jobs, the plain loop keeps states, and neither stores rows. ``of the
ledger`` compares pairs per second with the ledger in PostgreSQL that has as many owners.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.runtime import run_process
from tests.support.postgresql import PostgreSQL

OWNERS = (1, 4, 8)
VERBS = ("enqueue", "claim", "seal", "stored")
ROUNDS = 10
WARM_UP_PAIRS = 100

QUEUES = {
    "procrastinate": ("procrastinate_queue", ()),
    "SKIP LOCKED, one pair in a transaction": ("skip_locked", ("1",)),
    "SKIP LOCKED, 250 pairs in a transaction": ("skip_locked", ("250",)),
}


@dataclass(frozen=True, slots=True)
class Phase:
    """What all owners did at the same time: the seconds until the last one ended, and those of each call."""

    seconds: float
    calls: dict[str, list[float]]


class Owners:
    """Processes that execute the same command at the same time."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        """Start them one after the other."""
        self._processes: list[subprocess.Popen[str]] = []
        for _ in range(count):
            process = subprocess.Popen(
                command, env=run_process.ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._read(process)
            self._processes.append(process)

    def warm_up(self) -> None:
        """Execute each statement once in each process."""
        self.enqueue(WARM_UP_PAIRS * len(self._processes), first=10**9)
        self.run("capture")

    def enqueue(self, pairs: int, *, first: int = 0, hours: int = 1) -> Phase:
        """Enqueue pairs that were sent in the last hours, an equal share in each process."""
        share = pairs // len(self._processes)
        return self.run(*(f"enqueue {first + at * share} {share} {hours}" for at in range(len(self._processes))))

    def run(self, *commands: str) -> Phase:
        """Execute a command in each process, or one in all."""
        every = commands if len(commands) > 1 else commands * len(self._processes)
        for process, command in zip(self._processes, every, strict=True):
            assert process.stdin is not None
            process.stdin.write(command + "\n")
            process.stdin.flush()
        results = [json.loads(self._read(each)) for each in self._processes]
        calls: dict[str, list[float]] = {}
        for each in results:
            for name, seconds in each["seconds"].items():
                calls.setdefault(name, []).extend(seconds)
        return Phase(max(each["ended"] for each in results) - min(each["began"] for each in results), calls)

    def close(self) -> None:
        """End the processes."""
        for each in self._processes:
            each.communicate()

    def _read(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("an owner failed; its error is above")
        return line


@contextlib.contextmanager
def new_ledger(server: PostgreSQL, database: str) -> Iterator[str]:
    """Yield the path or URL of a ledger that does not exist yet; it is deleted at the end."""
    if database == "PostgreSQL":
        with server.database() as name:
            yield server.url(name).url
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "ledger.db")


def start_owners(location: str, count: int) -> contextlib.closing[Owners]:
    """Start owners of a ledger."""
    return contextlib.closing(Owners([sys.executable, str(run_process.HERE / "ledger_owner.py"), location], count))


def run_ledger(server: PostgreSQL, database: str, pairs: int, count: int) -> Phase:
    """Capture pairs with a number of owners; returns the time of the whole work."""
    with new_ledger(server, database) as location, start_owners(location, count) as owners:
        owners.warm_up()
        enqueued, captured = owners.enqueue(pairs), owners.run("capture")
    return Phase(enqueued.seconds + captured.seconds, enqueued.calls | captured.calls)


def compare(server: PostgreSQL, pairs: int, count: int, turns: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of both databases for a number of pairs and owners."""
    phases: dict[str, list[Phase]] = {"SQLite": [], "PostgreSQL": []}
    for _ in range(turns):
        for database, each in phases.items():
            each.append(run_ledger(server, database, pairs, count))
    for database, each in phases.items():
        columns = {"pairs": pairs, "owners": count, "database": database, "turns": turns}
        ratios = [one.seconds / other.seconds for one, other in zip(phases["SQLite"], each, strict=True)]
        micro = {verb: [1e6 * sum(one.calls[verb]) / pairs / count for one in each] for verb in VERBS}
        yield (
            "ledger_databases",
            columns
            | {f"{verb}, us per pair": statistics.median(micro[verb]) for verb in VERBS}
            | {
                "pairs per second": pairs / statistics.median(one.seconds for one in each),
                "of SQLite": statistics.median(ratios),
                "lowest and highest": f"{min(ratios):.2f} to {max(ratios):.2f}",
            },
        )
        longest = {f"{verb}, s": max(max(one.calls[verb]) for one in each) for verb in VERBS}
        yield "longest_calls", columns | longest


def compare_sizes(server: PostgreSQL, sizes: Sequence[int], count: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of pairs in PostgreSQL."""
    first = None
    for pairs in sizes:
        phase = run_ledger(server, "PostgreSQL", pairs, count)
        speed = pairs / phase.seconds
        first = first or speed
        longest = {f"longest {verb}, s": max(phase.calls[verb]) for verb in VERBS}
        speeds = {"pairs per second": speed, "of the first": speed / first}
        yield {"database": "PostgreSQL", "pairs": pairs, "owners": count} | speeds | longest


def run_queue(server: PostgreSQL, peer: str, arguments: Sequence[str], pairs: int, count: int) -> float:
    """Return the seconds that a queue takes for the whole work."""
    command = run_process.peer_script(peer)
    with (
        server.database() as name,
        contextlib.closing(Owners([*command, server.url(name).url, *arguments], count)) as owners,
    ):
        owners.warm_up()
        return owners.enqueue(pairs).seconds + owners.run("capture").seconds


def compare_queues(server: PostgreSQL, pairs: int, turns: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of all queues."""
    for count in OWNERS:
        seconds: dict[str, list[float]] = {"harvester": [], **{queue: [] for queue in QUEUES}}
        for _ in range(turns):
            seconds["harvester"].append(run_ledger(server, "PostgreSQL", pairs, count).seconds)
            for queue, (peer, arguments) in QUEUES.items():
                seconds[queue].append(run_queue(server, peer, arguments, pairs, count))
        for queue, each in seconds.items():
            ratios = [one / other for one, other in zip(seconds["harvester"], each, strict=True)]
            yield {
                "queue": queue,
                "owners": count,
                "pairs": pairs,
                "pairs per second": pairs / statistics.median(each),
                "of the ledger": statistics.median(ratios),
            }


def measure_bloat(server: PostgreSQL, pairs: int) -> Iterator[dict[str, Any]]:
    """Yield the size of each table after ten readings of every pair, and after it was rewritten."""
    with server.database() as name:
        location = server.url(name).url
        with start_owners(location, 1) as owners:
            owners.run(f"plan {ROUNDS + 1}")  # every pair waits for one more reading at the end
            owners.enqueue(pairs, hours=24)
            for _ in range(24 * ROUNDS):
                owners.run("advance 1")
                owners.run("capture")
        used = list_sizes(location)
        with psycopg.connect(location, autocommit=True) as connection:
            connection.execute("VACUUM FULL")
        for table, fresh in list_sizes(location).items():
            if fresh >= 2**20:
                mib = {"MiB": used[table] / 2**20, "fresh MiB": fresh / 2**20}
                yield {"table": table, "pairs": pairs, "readings": ROUNDS} | mib | {"times fresh": used[table] / fresh}


def list_sizes(location: str) -> dict[str, int]:
    """Return the bytes of each table with its indexes and large values."""
    sizes = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables ORDER BY relname"
    with psycopg.connect(location) as connection:
        return dict(connection.execute(sizes).fetchall())


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the tables."""
    with contextlib.closing(PostgreSQL({})) as server:
        for pairs, turns in ((8000, 1),) if quick else ((10_000, 3), (100_000, 1)):
            for count in OWNERS:
                yield from compare(server, pairs, count, turns)
        for row in compare_sizes(server, (2000, 8000) if quick else (10**5, 10**6), 4):
            yield "ledger_sizes", row
        for row in compare_queues(server, 500 if quick else 1500, 1 if quick else 3):
            yield "queues", row
    with contextlib.closing(PostgreSQL({"autovacuum_naptime": "1s"})) as server:
        for row in measure_bloat(server, 2000 if quick else 10_000):
            yield "bloat", row
