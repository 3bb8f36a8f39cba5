"""The ledger in PostgreSQL compared with SQLite, with one or more owners, and with other queues on the same server.

Each owner is a process with its own connection. They enqueue pairs of one workspace in pages of 2,000, claim 250
readings at a time, and seal and store batches of 1,000, with 600 bytes of rows for each. No request is made, so this is
the cost of the ledger alone. The server has its default settings and writes every commit to disk, as SQLite does; its
clients use its socket. ``SQLite, 1268f99`` is the ledger of that commit, from before ledgers in PostgreSQL. It claims a
whole batch at once, and does not count pairs as they change.

Microseconds per pair are the times of the calls of all owners, divided by the pairs and the owners. ``pairs per
second`` counts the whole work. The databases run in turn; figures are medians of the turns, and the longest calls are
those of all turns. ``of 1268f99`` and ``of SQLite`` compare pairs per second in the same turn.

The table with ``cores`` shows where the time goes: the CPU time of owners and server for each pair, how many cores they
use together, the write-ahead log of PostgreSQL, and what the owners' connections wait for in the server, sampled every
50 ms: for locks of each other, for the disk, and for the next statement of the owner. The rest of the samples are at
work, or wait for a core. If owners waited for each other or repeated work, fewer cores would be used, or CPU time and
log would grow with their number.

Bloat: every pair is read ten times, once a day; the sends are spread over a day. The benchmark captures the readings of
a day in seconds. Either autovacuum checks the tables every second instead of every minute, a few times in each of these
days, or they are vacuumed once in each hour of these days. On a server whose days last a day, autovacuum would be more
frequent. ``times fresh`` compares the size of a table and its indexes with their size after ``VACUUM FULL``.

The other queues do less: procrastinate keeps jobs, the plain loop keeps states, and neither stores rows. ``of the
ledger`` compares pairs per second with the ledger in PostgreSQL that has as many owners.
"""

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.runtime import run_process
from benchmarks.runtime.ledger_owners import Owners, Work, capture_all, new_ledger
from tests.support.postgresql import PostgreSQL

BEFORE = "1268f99"
EARLIER = f"SQLite, {BEFORE}"
OWNERS = (1, 4, 8)
VERBS = ("enqueue", "claim", "seal", "stored")
ROUNDS = 10

QUEUES = {
    "procrastinate": ("procrastinate_queue", ()),
    "SKIP LOCKED, one pair in a transaction": ("skip_locked", ("1",)),
    "SKIP LOCKED, 250 pairs in a transaction": ("skip_locked", ("250",)),
}

_OWNER = [sys.executable, str(run_process.HERE / "ledger_owner.py")]

Commands = Mapping[str, Sequence[str]]
"""The databases that are compared, and the commands that start an owner, without the ledger's path or URL."""


def list_commands(folder: Path) -> Commands:
    """Return the commands of SQLite now, SQLite before if its commit is in this clone, and PostgreSQL."""
    commands = {"SQLite": _OWNER, "PostgreSQL": _OWNER}
    try:
        version = str(run_process.check_out(BEFORE, folder / BEFORE))
    except run_process.CommitMissing as error:
        print(f"no rows of {EARLIER}: {error}", file=sys.stderr, flush=True)
        return commands
    earlier = str(run_process.HERE / "earlier_ledger_owner.py")
    return {EARLIER: ["env", f"PYTHONPATH={version}", sys.executable, earlier, version]} | commands


def start_owners(command: Sequence[str], location: str, count: int) -> contextlib.closing[Owners]:
    """Start owners of a ledger."""
    return contextlib.closing(Owners([*command, location], count))


def run_ledger(server: PostgreSQL, database: str, pairs: int, count: int, *, command: Sequence[str] = _OWNER) -> Work:
    """Capture pairs with a number of owners; returns what the whole work took."""
    with new_ledger(server, database) as location, start_owners(command, location, count) as owners:
        return capture_all(server, owners, pairs)


def compare(
    server: PostgreSQL, commands: Commands, pairs: int, count: int, turns: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of all databases for a number of pairs and owners."""
    works: dict[str, list[Work]] = {database: [] for database in commands}
    for _ in range(turns):
        for database, command in commands.items():
            works[database].append(run_ledger(server, database, pairs, count, command=command))
    for database, each in works.items():
        columns = {"pairs": pairs, "owners": count, "database": database, "turns": turns}
        micro = {verb: [1e6 * sum(one.calls[verb]) / pairs / count for one in each] for verb in VERBS}
        row: dict[str, Any] = {f"{verb}, us per pair": statistics.median(micro[verb]) for verb in VERBS}
        row["pairs per second"] = pairs / statistics.median(one.seconds for one in each)
        if EARLIER in works:
            row["of 1268f99"] = statistics.median(compare_speeds(works[EARLIER], each))
        ratios = compare_speeds(works["SQLite"], each)
        row |= {"of SQLite": statistics.median(ratios), "lowest and highest": f"{min(ratios):.2f} to {max(ratios):.2f}"}
        yield "ledger_databases", columns | row
        yield "longest_calls", columns | {f"{verb}, s": max(max(one.calls[verb]) for one in each) for verb in VERBS}
        yield "ledger_profile", columns | profile(each, pairs)


def compare_speeds(works: Sequence[Work], others: Sequence[Work]) -> list[float]:
    """Return the speed of other works relative to those of the same turns."""
    return [one.seconds / other.seconds for one, other in zip(works, others, strict=True)]


def profile(works: Sequence[Work], pairs: int) -> dict[str, Any]:
    """Return where the time of a work goes, medians of the turns; a ledger in a file waits for nothing in a server."""

    def share(wait: str) -> Any:
        sampled = [100 * each.waits[wait] / each.waits.total() for each in works if each.waits.total()]
        return statistics.median(sampled) if sampled else "-"

    owners = statistics.median(each.owners_cpu_seconds for each in works)
    server = statistics.median(each.server_cpu_seconds for each in works)
    used = [(each.owners_cpu_seconds + each.server_cpu_seconds) / each.seconds for each in works]
    return {
        "owners, us of CPU per pair": 1e6 * owners / pairs,
        "server, us of CPU per pair": 1e6 * server / pairs,
        "cores": statistics.median(used),
        "WAL, bytes per pair": round(statistics.median(each.wal_bytes for each in works) / pairs),
        "wait for locks, %": share("locks"),
        "for the disk, %": share("disk"),
        "for the owner, %": share("client"),
    }


def compare_sizes(server: PostgreSQL, database: str, sizes: Sequence[int], count: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of pairs."""
    first = None
    for pairs in sizes:
        work = run_ledger(server, database, pairs, count)
        speed = pairs / work.seconds
        first = first or speed
        longest = {f"longest {verb}, s": max(work.calls[verb]) for verb in VERBS}
        speeds = {"pairs per second": speed, "of the first": speed / first}
        yield {"database": database, "pairs": pairs, "owners": count} | speeds | longest | profile([work], pairs)


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


def measure_bloat(pairs: int, *, hourly: bool) -> Iterator[dict[str, Any]]:
    """Yield the size of each table after ten readings of every pair, and after it was rewritten."""
    options = {"autovacuum": "off"} if hourly else {"autovacuum_naptime": "1s"}
    with contextlib.closing(PostgreSQL(options)) as server, server.database() as name:
        location = server.url(name).url
        with (
            start_owners(_OWNER, location, 1) as owners,
            psycopg.connect(location, autocommit=True) as connection,
        ):
            owners.run(f"plan {ROUNDS + 1}")  # every pair waits for one more reading at the end
            owners.enqueue(pairs, hours=24)
            for _ in range(24 * ROUNDS):
                owners.run("advance 1")
                owners.run("capture")
                if hourly:
                    connection.execute("VACUUM")
            used = list_sizes(connection)
            connection.execute("VACUUM FULL")
            fresh = list_sizes(connection)
        for table, (size, vacuums) in used.items():
            if fresh[table][0] >= 2**20:
                columns = {"table": table, "vacuum": "every hour" if hourly else "autovacuum", "pairs": pairs}
                mib = {"MiB": size / 2**20, "fresh MiB": fresh[table][0] / 2**20}
                ratio = {"times fresh": size / fresh[table][0]}
                yield columns | {"readings": ROUNDS, "vacuums": vacuums} | mib | ratio


def list_sizes(connection: psycopg.Connection) -> dict[str, tuple[int, int]]:
    """Return the bytes of each table with its indexes and large values, and how often it was vacuumed."""
    sizes = (
        "SELECT relname, pg_total_relation_size(relid), vacuum_count + autovacuum_count FROM pg_stat_user_tables "
        "ORDER BY relname"
    )
    return {table: (size, vacuums) for table, size, vacuums in connection.execute(sizes)}


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the tables."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(PostgreSQL({})) as server:
        commands = list_commands(Path(folder))
        for pairs, turns in ((8000, 1),) if quick else ((10_000, 3), (100_000, 1)):
            for count in OWNERS:
                yield from compare(server, commands, pairs, count, turns)
        for database in ("PostgreSQL", "SQLite"):
            for row in compare_sizes(server, database, (2000, 8000) if quick else (10**5, 10**6), 4):
                yield "ledger_sizes", row
        for hourly in (False, True):
            for row in measure_bloat(2000 if quick else 10_000, hourly=hourly):
                yield "bloat", row
        for row in compare_queues(server, 500 if quick else 1500, 1 if quick else 3):
            yield "queues", row
