"""Several ``harvester serve`` on one PostgreSQL ledger, while everything that they need fails at random.

The replicas are killed, terminated, and suspended for longer than a lease; each one that ends is replaced at once.
Independently, the database is killed, stopped and suspended, and its connections are terminated; half of the replicas
reach it through a proxy that cuts connections around a COMMIT. The broker is killed and suspended; keys are revoked;
requests and uploads fail. Each of these happens after a random number of kills of replicas. The pairs arrive in
proportion to the kills.
"""

import asyncio
import csv
import logging
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from multiprocessing.process import BaseProcess
from pathlib import Path

import psycopg

from benchmarks.torture.check_output import CheckFailed, OutputChecker, Pair, check_secrets
from benchmarks.torture.check_requests import check_deadlines, check_quota, check_times
from benchmarks.torture.service_target import SETTLE_SECONDS, ServiceTarget
from benchmarks.torture.storage_targets import BucketPlace, FolderPlace
from benchmarks.torture.torture_target import REPLICA_LEASE_SECONDS, start_harvester, start_stand_in, wait_until_serving
from harvester.errors import ExitCode
from harvester.model import RETENTION_SECONDS
from harvester.simulator import SimulatorConfig, generate_population
from tests.support.brokers import BrokerServer
from tests.support.database_proxy import DatabaseProxy, Fault
from tests.support.postgresql import PostgreSQL
from tests.support.processes import free_port

LIFE_SECONDS = 6.0
"""The longest time until a replica is killed; the mean is half of it."""

SERVING_SHARE = 0.85
"""The share of replicas whose time begins once they serve. The others may be killed while they start."""

RESTART_SECONDS = 1.0
"""The pause after a start that failed because the database was unavailable."""

STOP_SECONDS = 30.0
WINDOW_SECONDS = 60.0
RESERVE = 0.2
REQUESTS_OF_PAIR = 1.6
SECONDS_OF_KILL = 2.0
"""How many requests a pair needs, and how long a kill takes, about. The quota allows no more than that."""

DEADLINE_SECONDS = (180.0, 900.0)
"""How long the analytics of an old send still exist when it arrives. Its only reading is the final one."""

_LIST_CAPTURES = """
    SELECT campaign_id, send_id, outcome.reading FROM outcome JOIN pair ON pair.id = pair_id
    WHERE outcome.outcome = 'captured'
"""
_LIST_REPEATED = """
    SELECT workspace, send_id, sent_at, first_seen_at, expires_at, round, captures, outcome.reading, ended_at, batch_id
    FROM pair JOIN outcome ON pair.id = pair_id WHERE pair_id IN (
        SELECT pair_id FROM outcome WHERE outcome = 'captured' GROUP BY pair_id, reading HAVING count(*) > 1
    ) ORDER BY outcome.id
"""
_COUNT_PROGRESS = """
    SELECT count(*), count(*) FILTER (WHERE state = 'settled'), (SELECT count(*) FROM batch WHERE state <> 'stored')
    FROM pair
"""


@dataclass(slots=True)
class Workspace:
    """A workspace of the stand-in, which has its own port, key, quota and log."""

    name: str
    seed: int
    pairs: int
    port: int
    key: str
    log: Path


class ReplicasTarget(ServiceTarget):
    """Runs ``replicas`` services at the same time, and replaces each one that ends."""

    jumps = (*[0.0] * 8, 3.0, -3.0, -3600.0, 3 * 86_400.0, -3 * 86_400.0, 20 * 86_400.0)

    def __init__(
        self, disk: Path, place: FolderPlace | BucketPlace, broker_server: BrokerServer, database: PostgreSQL,
        *, seed: int, kills: int, replicas: int, workspaces: int, pairs: int,
    ) -> None:  # fmt: skip
        """Use a new database of a server. ``pairs`` arrive, which ``workspaces`` share evenly."""
        super().__init__(disk, place, broker_server, seed=seed, kills=kills)
        self.database, self.replicas, self.pairs = database, replicas, pairs
        self._ledger = database.create_database()
        self._ledger_url = database.url(self._ledger, port=database.port).url
        self._proxy = DatabaseProxy(database, self._ledger)
        (disk / "ledger.key").write_text(self._ledger_url)
        self.env |= {"HARVESTER_STATE_FILE": "ledger.key"}
        self.workspaces = [self._create_workspace(number, -(-pairs // workspaces)) for number in range(workspaces)]
        day = datetime.now(UTC).date()
        sends = [
            list(generate_population(seed=each.seed, pairs=each.pairs, day=day, workspace=each.name))
            for each in self.workspaces
        ]
        self.population = chain.from_iterable(zip(*sends, strict=True))
        self._workspace_of = {(each.pair.campaign_id, each.pair.send_id): each.pair.workspace for each in chain(*sends)}
        self.keys = [each.key for each in self.workspaces]
        needed = REQUESTS_OF_PAIR * pairs / workspaces / (SECONDS_OF_KILL * kills)
        self.limit = math.ceil(needed * WINDOW_SECONDS / (1 - RESERVE))
        logs = [each.log for each in self.workspaces]
        self.checker = OutputChecker(logs, place.parts, self.last_reading)
        self._running: dict[int, BaseProcess] = {}
        self._until = math.inf
        self._failed: BaseException | None = None

    def _create_workspace(self, number: int, pairs: int) -> Workspace:
        name = f"w{number:02}"
        log = self.output / f"responses-{name}.ndjson"
        log.touch()
        each = Workspace(name, self.seed * 1000 + number, pairs, free_port(), f"torture-key-{name}-0", log)
        self._write_key(each)
        return each

    def _write_key(self, workspace: Workspace) -> None:
        written = self.disk / "new.key"  # a replica that starts meanwhile must not read half of it
        written.write_text(workspace.key)
        written.replace(self.disk / f"{workspace.name}.key")

    # What the services are given

    def workspace_tables(self, ages: list[float]) -> list[str]:
        """See ``ServiceTarget``."""
        lines = ["[workspace_defaults]", f"ages_days = {ages}", f"reserve = {RESERVE}"]
        for each in self.workspaces:
            lines += [f"[workspaces.{each.name}]", f'endpoint = "http://127.0.0.1:{each.port}"']
            lines.append(f'api_key_file = "{each.name}.key"')
        return lines

    def arguments(self) -> list[str]:
        """Return the command of a replica."""
        return ["serve", "--config", "harvester.toml"]

    def describe_pair(self, pair: Pair) -> dict[str, str]:
        """Return the pair with its workspace."""
        return super().describe_pair(pair) | {"workspace": self._workspace_of[pair]}

    def choose_time(self) -> float | None:
        """Return the time of a new send: mostly now; for some it is unknown, and some soon expire."""
        if self.rng.random() < 0.2:
            return time.time() - RETENTION_SECONDS + self.rng.uniform(*DEADLINE_SECONDS)
        return super().choose_time()

    async def restart_api(self, *, without_faults: bool = False) -> None:
        """Restart the stand-in with the newest keys and other faults. This drops open connections."""
        self.stop_api()
        latency_seconds = self.rng.choice([0.001, 0.01, 0.05])
        fault_rate = 0.0 if without_faults else self.rng.choice([0.0, 0.02, 0.1])
        configs = [
            SimulatorConfig(
                seed=each.seed, pairs=each.pairs, port=each.port, api_key=each.key, log=each.log, limit=self.limit,
                window_seconds=WINDOW_SECONDS, latency_seconds=latency_seconds, fault_rate=fault_rate,
            )
            for each in self.workspaces
        ]  # fmt: skip
        self._api = start_stand_in(*configs)
        await asyncio.to_thread(wait_until_serving, self.workspaces[-1].port)

    # The test

    @property
    def _done(self) -> bool:
        """Whether enough replicas were killed."""
        return self.counts["kills"] >= self.kills_wanted or time.monotonic() > self._until

    async def run(self, *, seconds: float) -> None:
        """Inject faults for at most ``seconds``, stop them, settle all pairs and check. Raises ``CheckFailed``."""
        self._until = time.monotonic() + seconds
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it reports each kill of the broker
        await self.restart_api()
        await self.set_up()
        loops: list[Callable[[random.Random], Awaitable[None]]] = [
            self._send_pairs, self._fail_database, self._cut_commits, self._fail_broker, self._fail_api,
            self._fail_store, self._check,
            *[lambda rng, number=number: self._replace(number, rng) for number in range(self.replicas)],
        ]  # fmt: skip
        try:
            await self._run_together(loops)
            await self.restart_api(without_faults=True)
            await self.settle_all()
            self._check_all()
        finally:
            for process in self._running.values():
                process.kill()

    async def _run_together(self, loops: list[Callable[[random.Random], Awaitable[None]]]) -> None:
        """Run all loops until they end, each with its own random numbers. Raises ``CheckFailed``."""
        try:
            async with self._proxy, asyncio.TaskGroup() as group:
                (self.disk / "proxy.key").write_text(self._proxy.url.url)
                for number, loop in enumerate(loops):
                    group.create_task(loop(random.Random(f"{self.seed}-{number}")))
        except* CheckFailed as failed:
            self._failed = failed.exceptions[0]
        if self._failed:
            raise self._failed

    async def _wait_for_kills(self, rng: random.Random, mean: int) -> bool:
        """Wait for a random number of kills; returns False once there are enough."""
        goal = self.counts["kills"] + rng.randrange(1, 2 * mean)
        while self.counts["kills"] < goal and not self._done:
            await asyncio.sleep(0.05)
        return not self._done

    async def _send_pairs(self, _rng: random.Random) -> None:
        """Send pairs in proportion to the kills, and repeat what the broker may not have stored."""
        while len(self.enqueued_pairs) < self.pairs:
            share = 1.0 if self._done else (1 + self.counts["kills"]) / self.kills_wanted
            count = min(200, int(share * self.pairs) - len(self.enqueued_pairs))
            if count <= 0:
                await asyncio.sleep(0.05)
                continue
            messages = self.create_messages(self.new_pairs(count))
            while True:
                try:
                    async with asyncio.timeout(20):
                        await self.broker_server.send(self.queue, *messages)
                        break
                except Exception:  # noqa: BLE001 - the libraries of brokers raise various errors
                    self.counts["messages repeated"] += len(messages)
                    await asyncio.sleep(RESTART_SECONDS)

    # Replicas

    async def _replace(self, number: int, rng: random.Random) -> None:
        """Start one replica after the other, and end each in a random way."""
        while not self._done:
            jumps = [rng.choice(self.jumps) for _ in range(2)]
            process = self._start_replica(number, jumps, "proxy.key" if number % 2 else "ledger.key")
            if rng.random() < SERVING_SHARE:
                while process.is_alive() and not self._is_serving(process) and not self._done:
                    await asyncio.sleep(0.05)
            await self._let_live(process, rng.uniform(0, LIFE_SECONDS))
            match rng.choices(["kill", "suspend", "clock", "term"], [70, 12, 8, 10])[0]:
                case "suspend":
                    self.counts["suspended"] += process.is_alive()
                    self.signal(process, signal.SIGSTOP)
                    await asyncio.sleep(rng.uniform(1.1, 1.5) * REPLICA_LEASE_SECONDS)
                    self.signal(process, signal.SIGCONT)
                    await self._let_live(process, rng.uniform(0, LIFE_SECONDS))
                case "clock":
                    self.counts["clock jumps"] += process.is_alive()
                    self.signal(process, signal.SIGUSR1)
                    await self._let_live(process, rng.uniform(0, LIFE_SECONDS))
                case "term":
                    self.counts["terms"] += process.is_alive()
                    self.signal(process, signal.SIGTERM)
                    await asyncio.sleep(rng.choice([0, 0.1, 1.0, 5.0]))
            self.kill(process)
            await self.wait_for_end(process)

    def _start_replica(self, number: int, jumps: list[float], url_file: str = "ledger.key") -> BaseProcess:
        self.counts["started"] += 1
        self.counts["wrong clocks"] += jumps[0] != 0
        output = self.output / f"replica-{number}-{self.counts['started']}"
        env = self.env | self.place.env | {"HARVESTER_STATE_FILE": url_file}
        process = start_harvester(self.disk, env, self.arguments(), output=output, jumps=jumps, replica=True)
        process.name = output.name
        self._running[number] = process
        return process

    def _is_serving(self, process: BaseProcess) -> bool:
        """Return whether a replica has logged that it serves."""
        return b"service_started" in (self.output / process.name).read_bytes()

    async def _let_live(self, process: BaseProcess, seconds: float) -> None:
        """Wait. A replica may end by itself only before it serves, or after a COMMIT that a crash made uncertain."""
        until = time.monotonic() + seconds
        while process.is_alive() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        if process.is_alive():
            return
        output = (self.output / process.name).read_text(errors="replace")
        unknown = process.exitcode == ExitCode.STORAGE and "server has crashed, and cannot tell" in output
        if process.exitcode == 0 or (self._is_serving(process) and not unknown):
            raise CheckFailed(f"a replica ended by itself with {process.exitcode}: {output[-4000:]}")
        self.counts["unknown commits" if unknown else "failed starts"] += 1
        await asyncio.sleep(RESTART_SECONDS)

    # What they need

    async def _fail_database(self, rng: random.Random) -> None:
        """Kill, stop or suspend the database, or terminate its connections."""
        database, faults = self.database, ["kill", "stop", "suspend", "terminate"]
        while await self._wait_for_kills(rng, 6):
            fault, seconds = rng.choices(faults, [3, 3, 2, 4])[0], rng.uniform(0, 1.2 * REPLICA_LEASE_SECONDS)
            self.counts[f"database: {fault}"] += 1
            if fault == "terminate":
                await asyncio.to_thread(database.terminate_connections, self._ledger)
            elif fault == "suspend":
                database.suspend()
                await asyncio.sleep(seconds)
                database.resume()
            else:
                stop = database.kill if fault == "kill" else database.stop
                how = () if fault == "kill" else (rng.choice([signal.SIGQUIT, signal.SIGINT]),)
                await asyncio.to_thread(stop, *how)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(database.start)

    async def _cut_commits(self, rng: random.Random) -> None:
        """Lose a COMMIT, its reply, or the connection meanwhile."""
        while await self._wait_for_kills(rng, 3):
            self._proxy.fault = rng.choice([Fault.REQUEST_LOST, Fault.REPLY_LOST, Fault.CUT_MEANWHILE])
            self.counts["database: commit cut"] += 1

    async def _fail_broker(self, rng: random.Random) -> None:
        """Kill or suspend the broker."""
        while await self._wait_for_kills(rng, 12):
            seconds = rng.uniform(0, 5.0)
            if rng.random() < 0.5:
                self.counts["broker: suspend"] += 1
                self.broker_server.server.suspend()
                await asyncio.sleep(seconds)
                self.broker_server.server.resume()
            else:
                self.counts["broker: kill"] += 1
                await asyncio.to_thread(self.broker_server.interrupt)
                await asyncio.sleep(seconds)
                await self.broker_server.restore()

    async def _fail_api(self, rng: random.Random) -> None:
        """Restart the API with another share of failures, and revoke the key of a workspace."""
        while await self._wait_for_kills(rng, 5):
            each = rng.choice(self.workspaces)
            revoked = rng.random() < 0.5
            if revoked:
                each.key = f"torture-key-{each.name}-{len(self.keys)}"
                self.keys.append(each.key)
            self.counts["api: key revoked" if revoked else "api: restart"] += 1
            self.stop_api()
            await asyncio.sleep(rng.uniform(0, 2.0))
            await self.restart_api()
            await asyncio.sleep(rng.uniform(0, 1.0))
            self._write_key(each)

    async def _fail_store(self, rng: random.Random) -> None:
        """Let the store drop connections, be unavailable, or work."""
        while await self._wait_for_kills(rng, 4):
            if fault := self.place.set_faults(rng):
                self.counts[f"store: {fault.removeprefix('store ')}"] += 1
        self.place.clear_faults()

    async def _check(self, _rng: random.Random) -> None:
        """Check the parts from time to time, and print the progress."""
        while await self._wait_for_kills(random.Random(), 50):
            await asyncio.to_thread(self.checker.check)
            print(f"{self.counts['kills']} kills, {len(self.enqueued_pairs)} pairs", flush=True)

    # The end

    async def settle_all(self) -> None:
        """Serve until everything is settled and stored; a SIGTERM must then end each replica with 0."""
        processes = [self._start_replica(number, [0.0]) for number in range(self.replicas)]
        pairs = len(self.enqueued_pairs)
        until, before = 0.0, (-1, -1, -1)
        while (found := self._query(_COUNT_PROGRESS)[0]) != (pairs, pairs, 0):
            if found != before:
                until, before = time.monotonic() + SETTLE_SECONDS, found
            if time.monotonic() > until:
                raise CheckFailed(f"accepted, settled, and batches not stored: {found}; {pairs} pairs arrived")
            for process in processes:
                await self._let_live(process, 0.1)
        for process in processes:
            process.terminate()
        for process in processes:
            await self.wait_for_end(process, timeout_seconds=STOP_SECONDS)
            if process.exitcode != 0:
                raise CheckFailed(f"an idle replica ended with {process.exitcode}")
        left = await self.broker_server.count_messages(self.queue)
        dead = await self.broker_server.list_dead_letters(self.queue)
        if left or dead:
            raise CheckFailed(f"{left} messages are left, and these are dead letters: {dead[:3]}")

    def _query(self, statement: str) -> list[tuple]:
        with psycopg.connect(self._ledger_url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def _check_all(self) -> None:
        """Check the parts, the requests and the ledger against each other. Raises ``CheckFailed``."""
        self.checker.check()
        try:
            self.checker.check_complete(self.enqueued_pairs)
        except CheckFailed as error:
            raise CheckFailed(f"{error}; captured twice in the ledger: {self._query(_LIST_REPEATED)}") from None
        sealed = Counter(self._query(_LIST_CAPTURES))
        stored = self.checker.captures
        if different := [*(sealed - stored), *(stored - sealed)]:
            raise CheckFailed(f"ledger and parts differ: {different[:3]}")
        books = self.read_books()
        if (books["accepted"], sum(books["captured"].values())) != (len(self.enqueued_pairs),) * 2:
            raise CheckFailed(f"not everything is captured: {books}")
        self._audit()
        for folder in (self.disk, self.output):
            check_secrets([*self.keys, self.broker_server.url, self._ledger_url], folder)
        self._check_requests()

    def _check_requests(self) -> None:
        """Check the times of captures, deadlines and reserves. Raises ``CheckFailed``."""
        check_times([each.log for each in self.workspaces], self.checker.captured_at)
        deadlines = {pair: at + RETENTION_SECONDS for pair, at in self.sent_at.items() if at is not None}
        self.figures["before the deadline, s"] = min(check_deadlines(each.log, deadlines) for each in self.workspaces)
        reserve = math.floor(RESERVE * self.limit)
        limits = {"limit": self.limit, "reserve": reserve, "window_seconds": WINDOW_SECONDS}
        left = [check_quota(each.log, **limits) for each in self.workspaces]
        self.figures["above the reserve"] = min(left) - reserve

    def _audit(self) -> None:
        """Check that ``harvester audit`` misses no pair. Raises ``CheckFailed``."""
        with (self.disk / "pairs.csv").open("w", newline="") as file:
            rows = [(self._workspace_of[pair], *pair) for pair in sorted(self.enqueued_pairs)]
            csv.writer(file).writerows([("workspace", "campaign_id", "send_id"), *rows])
        output, command = self.output / "audit", ["audit", "pairs.csv", "--config", "harvester.toml"]
        process = start_harvester(self.disk, self.env, command, output=output, jumps=[0.0])
        process.join()
        if process.exitcode != 0:
            raise CheckFailed(f"harvester audit ended with {process.exitcode}: {output.read_text()[-2000:]}")
