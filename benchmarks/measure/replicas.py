"""Replicas on one ledger in PostgreSQL: their throughput, and how soon they divide the workspaces again.

The replicas serve 40 workspaces. They run when pairs are enqueued, and write to one folder. Server, database and
replicas run on the same machine, which limits the gain: ``cores`` is how many of them were busy, with everything that
ran. Throughput is measured from 10 to 90 % of the captures.

``settled`` is the time until every living replica serves its new share, after one of four was killed with ``kill -9``,
and after one has started.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.runtime import run_process
from tests.support.postgresql import PostgreSQL

WORKSPACES = 40
COUNTS = (1, 2, 4)
PATIENCE_SECONDS = 300.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Replicas:
    """Running replicas on one ledger, and their logs."""

    def __init__(self, folder: Path, state: str, url: str) -> None:
        """Write the configuration."""
        self._folder = folder
        self._state = state
        self._running: dict[Path, subprocess.Popen[bytes]] = {}
        tables = [f'[workspaces.w{at}]\nendpoint = "{url}"\napi_key = "a-key-of-{at}"\n' for at in range(WORKSPACES)]
        head = f'out = "{folder / "out"}"\nstate = "{state}"\nweb_port = 0\n[workspace_defaults]\nmax_rate = 100000\n'
        (folder / "harvester.toml").write_text(head + "".join(tables))

    def start(self) -> None:
        """Start one more."""
        log = self._folder / f"replica-{time.monotonic_ns()}.log"
        command = run_process.harvester("serve", "--config", str(self._folder / "harvester.toml"), "--log-json")
        with log.open("wb") as file:
            self._running[log] = subprocess.Popen(command, env=run_process.ENVIRONMENT, stdout=file, stderr=file)

    def kill(self) -> None:
        """Kill one."""
        process = self._running.pop(next(iter(self._running)))
        process.kill()
        process.wait()

    def close(self) -> None:
        """Stop all."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait()

    def have_settled(self) -> bool:
        """Return whether each of them serves its share, and all shares together are all workspaces."""
        shares = [_find_share(log.read_text()) for log in self._running]
        known = [share for share in shares if share is not None]
        return all(count == len(shares) for _, count in known) and sum(share for share, _ in known) == WORKSPACES

    def enqueue(self, pairs: int) -> None:
        """Enqueue pairs that are due, an equal number in each workspace."""
        lines = [f"w{at % WORKSPACES},campaign-{at // 1000},send-{at}\n" for at in range(pairs)]
        (self._folder / "pairs.csv").write_text("workspace,campaign_id,send_id\n" + "".join(lines))
        options = ("--config", str(self._folder / "harvester.toml"))
        run_process.run_checked(run_process.harvester("enqueue", str(self._folder / "pairs.csv"), *options))

    def count_captures(self) -> int:
        """Return how many readings are captured and sealed."""
        with psycopg.connect(self._state) as connection:
            row = connection.execute("SELECT coalesce(sum(readings), 0) FROM outcome_count").fetchone()
            assert row is not None
            return int(row[0])


def _find_share(log: str) -> tuple[int, int] | None:
    """Return how many workspaces a replica serves, and how many replicas it knows; None before it knows."""
    for line in reversed(log.splitlines()):
        if '"workspaces_assigned"' in line:
            event = json.loads(line)
            return event["workspaces"], event["replicas"]
    return None


def wait_until(condition: Callable[[], bool]) -> float:
    """Return the seconds until a condition is true."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise SystemExit("the replicas take too long")
        time.sleep(0.1)
    return time.monotonic() - began


@contextlib.contextmanager
def run_replicas(server: PostgreSQL, url: str, count: int) -> Iterator[Replicas]:
    """Run replicas on a new ledger, and wait until they have divided the workspaces."""
    with server.database() as name, tempfile.TemporaryDirectory() as folder:
        replicas = Replicas(Path(folder), server.url(name).url, url)
        with contextlib.closing(replicas):
            for _ in range(count):
                replicas.start()
            wait_until((lambda: _is_ready(server, name)) if count == 1 else replicas.have_settled)
            yield replicas


def _is_ready(server: PostgreSQL, database: str) -> bool:
    """Return whether a replica that is alone serves; it has no share."""
    with psycopg.connect(server.url(database).url) as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
        return bool(connection.execute("SELECT 1 FROM owner WHERE serves = 1").fetchall())
    return False


def measure_throughput(replicas: Replicas, pairs: int) -> dict[str, float]:
    """Return the throughput of replicas, and the cores that were busy."""
    replicas.enqueue(pairs)
    wait_until(lambda: replicas.count_captures() >= pairs * 0.1)
    first, busy = replicas.count_captures(), _count_busy_seconds()
    seconds = wait_until(lambda: replicas.count_captures() >= pairs * 0.9)
    captured = replicas.count_captures() - first
    return {"pairs per second": captured / seconds, "cores": (_count_busy_seconds() - busy) / seconds}


def _count_busy_seconds() -> float:
    """Return the seconds that all cores of the machine together have been busy."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / _TICKS


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the tables."""
    pairs = 8000 if quick else 20_000
    script = run_process.SERVERS["nginx"]
    with contextlib.closing(PostgreSQL({})) as server, run_process.start_server(script) as running:
        for count in COUNTS:
            with run_replicas(server, running.url, count) as replicas:
                figures = measure_throughput(replicas, pairs)
                yield "replicas", {"replicas": count, "workspaces": WORKSPACES, "pairs": pairs} | figures
                if count == COUNTS[-1]:
                    for event, cause in (("one is killed", replicas.kill), ("one starts", replicas.start)):
                        cause()
                        yield "shares", {"event": event, "settled, s": wait_until(replicas.have_settled)}
