"""Runs owners of a ledger, each a process, at the same time, and measures what they and the server use."""

import contextlib
import json
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runtime import run_process
from benchmarks.runtime.cpu_time import count_cpu_seconds
from tests.support.postgresql import PostgreSQL

WARM_UP_PAIRS = 100
SAMPLE_SECONDS = 0.05

# The server writes its log for all connections at once: those that wait for the lock wait for the disk.
_SAMPLE = """
SELECT CASE WHEN wait_event_type = 'IO' OR wait_event = 'WALWrite' THEN 'disk'
    WHEN wait_event_type IN ('Lock', 'LWLock', 'BufferPin') THEN 'locks'
    WHEN wait_event_type = 'Client' THEN 'client' ELSE '' END, count(*)
FROM pg_stat_activity WHERE usename = 'harvester' GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class Phase:
    """What all owners did at the same time: the seconds until the last one ended, and those of each call."""

    seconds: float
    calls: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Work(Phase):
    """A whole work: also the CPU seconds of owners and server, the bytes of the server's write-ahead log, and waits.

    The waits are how many sampled connections waited for what.
    """

    owners_cpu_seconds: float
    server_cpu_seconds: float
    wal_bytes: int
    waits: Counter[str]


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

    def count_cpu_seconds(self) -> float:
        """Return the CPU seconds of all of them until now."""
        return sum(count_cpu_seconds(each.pid) for each in self._processes)

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


def capture_all(server: PostgreSQL, owners: Owners, pairs: int) -> Work:
    """Enqueue and capture pairs; returns what the whole work took."""
    owners.warm_up()
    pid = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    owners_before, server_before, wal_before = owners.count_cpu_seconds(), count_cpu_seconds(pid), _count_wal(server)
    with sample_waits(server) as waits:
        enqueued, captured = owners.enqueue(pairs), owners.run("capture")
    return Work(
        enqueued.seconds + captured.seconds,
        enqueued.calls | captured.calls,
        owners.count_cpu_seconds() - owners_before,
        count_cpu_seconds(pid) - server_before,
        _count_wal(server) - wal_before,
        waits,
    )


def _count_wal(server: PostgreSQL) -> int:
    return int(server.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")[0][0])


@contextlib.contextmanager
def sample_waits(server: PostgreSQL) -> Iterator[Counter[str]]:
    """Count what the connections of owners wait for, at regular times until the context ends; empty for nothing."""
    waits: Counter[str] = Counter()
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for wait, connections in server.execute(_SAMPLE):
                waits[wait] += connections

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()
