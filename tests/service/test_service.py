"""``harvester serve`` as a process, with real brokers, a bucket and a stand-in API."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import zstandard

from harvester.simulator import Simulator, SimulatorConfig
from tests.conftest import Command, read_rows
from tests.support.brokers import BROKER_SERVERS, create_queue_name
from tests.support.object_stores import BUCKET, s3
from tests.support.processes import free_port
from tests.support.secret_canary import KEY
from tests.support.tcp_proxy import TcpProxy
from tests.support.warm_process import WarmProcess

SERVE = ("serve", "--config", "h.toml", "--log-level", "warning")
PATIENCE_SECONDS = 180
DAY_SECONDS = 86_400
ONE_READING = [1 / DAY_SECONDS]
AT_FIRST = ("--workspace", "eu", "--workspace", "other")
"""Options that a command needs until a service has used the ledger."""

MANY = int(os.environ.get("SERVICE_PAIRS", "2000"))
FEW = int(os.environ.get("SERVICE_PAIRS", "250"))
"""Pairs of the test with kills: with RabbitMQ, and with the other brokers."""

KILLS = {
    "rabbitmq": ("service", "both"), "sqs": ("both", "service"),
    "nats": ("broker", "both"), "redis": ("broker", "both"),
}  # fmt: skip
"""What is killed, one after the other, each after a random number of requests."""


async def wait_until(condition):
    """Wait until a condition holds in another process, and return its value."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := condition()):
            await asyncio.sleep(0.05)
        return found


def toml(value):
    """Return a value as TOML, which writes lists, numbers and plain strings like JSON."""
    return json.dumps(value)


class Serving:
    """A service process that can be killed and started again, with one configuration, ledger and place."""

    def __init__(self, folder: Path, endpoint: str, out: str, *, env=None, **tables):
        """Write the configuration. ``tables`` are triggers and further workspaces by name."""
        self.command, self.folder, self.out = Command(folder), folder, out
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = folder / "key"
        self.key.write_text(KEY)
        self.ledger = folder / "ledger.db"
        self.command.env |= (env or {}) | {"HARVESTER_OUT": out, "HARVESTER_STATE": str(self.ledger)}
        del self.command.env["BRAZE_API_KEY"]
        self.process: WarmProcess | None = None
        tables = {"workspaces.eu": {}} | tables
        lines = [f"web_port = {self.port}"]
        for name, given in tables.items():
            default = {"endpoint": endpoint, "api_key_file": str(self.key), "ages_days": ONE_READING, "max_rate": 1e6}
            values = (default if name.startswith("workspaces") else {}) | given
            lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in values.items())]
        (folder / "h.toml").write_text("\n".join(lines))

    def start(self, *more):
        """Begin, warm: tests of the command line and of the compose file start it cold."""
        self.process = self.command.start_warm(*SERVE, *more)

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.communicate()

    def end(self):
        """Kill the process, unless it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    async def wait_for_end(self):
        """Wait for the end, and return the exit code and stderr."""
        _, err = await asyncio.to_thread(self.process.communicate)
        return self.process.returncode, err.decode()

    async def run_to_end(self, *more):
        """Run the service until it ends, and return the exit code and stderr."""
        code, _, err = await self.command.run(*SERVE, *more)
        return code, err

    async def start_once(self):
        """Start the service once, so that the ledger contains its plans."""
        code, err = await self.run_to_end("--until-idle")
        assert code == 0, err

    async def stop(self):
        """Send SIGTERM, and return the exit code and stderr."""
        self.process.send_signal(signal.SIGTERM)
        return await self.wait_for_end()

    @asynccontextmanager
    async def running(self, *more):
        """Run the service for the duration of a block."""
        self.start(*more)
        try:
            await self.wait_for_page("/livez")
            yield self
            code, err = await self.stop()
            assert (code, "Traceback" in err) == (0, False), err
        finally:
            self.end()

    async def get(self, path):
        """Return the status and text of a path; 0 while the server does not listen."""
        try:
            async with aiohttp.ClientSession() as client, client.get(self.url + path) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def wait_for_page(self, path, status=200, word=""):
        """Wait until a path answers with a status and a word, and return its text."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                seen, text = await self.get(path)
                if seen == status and word in text:
                    return text
                assert self.process.poll() is None, self.process.communicate()[1].decode()
                await asyncio.sleep(0.05)

    def query(self, statement):
        """Query the ledger with plain SQLite; no rows while there is no ledger."""
        if not self.ledger.exists():
            return []
        with closing(sqlite3.connect(self.ledger, timeout=10)) as connection:
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError:  # not made yet
                return []

    def count(self, statement):
        """Return the first number of a query."""
        return (self.query(statement) or [(0,)])[0][0]

    def accepted(self):
        """Return the number of pairs in the ledger."""
        return self.count("SELECT count(*) FROM pair")

    def captured(self):
        """Return the number of captured readings, once all batches are stored."""
        if self.count("SELECT count(*) FROM batch WHERE state != 'stored'"):
            return 0
        return self.count("SELECT count(*) FROM outcome WHERE outcome = 'captured'")

    def settled(self):
        """Return the number of settled pairs, once all batches are stored."""
        if self.count("SELECT count(*) FROM batch WHERE state != 'stored'"):
            return 0
        return self.count("SELECT count(*) FROM pair WHERE state = 'settled'")

    async def enqueue(self, simulator, first, last, workspace="eu", sent_at=""):
        """Enqueue sends of the stand-in with the command."""
        lines = [f"{workspace},{one.pair.campaign_id},{one.pair.send_id},{sent_at}"
                 for one in simulator.population[first:last]]  # fmt: skip
        (self.folder / "p.csv").write_text("\n".join(["workspace,campaign_id,send_id,sent_at", *lines]))
        code, out, err = await self.command.run("enqueue", "p.csv", *(() if self.ledger.exists() else AT_FIRST))
        assert (code, out.startswith(f"{last - first} pair")) == (0, True), err

    async def status(self):
        """Return the output of ``harvester status --json``."""
        code, out, err = await self.command.run("status", "--json")
        assert code == 0, err
        return json.loads(out)


def captures(bucket, place):
    """Count each reading of each pair in the bucket, read without our code."""
    names = place.removeprefix(f"s3://{BUCKET}/") + "/send_analytics/"
    found = Counter()
    for name, data in bucket.read_objects().items():
        if name.startswith(names) and name.endswith(".zst"):
            rows = zstandard.ZstdDecompressor().decompressobj().decompress(data).splitlines()
            captured = [json.loads(row) for row in rows if b'"level":"capture"' in row]
            found.update((row["campaign_id"], row["send_id"], row["reading"]) for row in captured)
    return found


def messages(simulator, *, each, sent_at=None):
    """Return messages with all sends of the stand-in, ``each`` in a message."""
    pairs = [{"campaign_id": one.pair.campaign_id, "send_id": one.pair.send_id} for one in simulator.population]
    if sent_at is not None:
        pairs = [pair | {"sent_at": sent_at} for pair in pairs]
    return [json.dumps({"version": 1, "pairs": pairs[at : at + each]}).encode() for at in range(0, len(pairs), each)]


@pytest.fixture
async def broker_server(request, broker_servers):
    """The broker that a test names, and the environment that connects a process to it."""
    found = broker_servers(request.param)
    await found.wait_until_ready()
    if found.kind != "sqs":
        yield found, {}
        return
    async with TcpProxy(found.port, lambda *request: found.choose_fate(*request) or "brief") as way:
        yield found, {"AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{way.port}", "AWS_DEFAULT_REGION": "us-east-1"}


def trigger(broker_server, name, **more):
    """Return the configuration of a trigger on a queue."""
    options = {
        key: value for key, value in broker_server.options(name).items() if key not in ("lease_seconds", "dead_letter")
    }
    if "url" in options:
        options["url"] = options["url"]()
    return {"triggers.sends": {"kind": broker_server.kind} | options | more}


def place(bucket):
    """Return a new place in a bucket."""
    return f"{bucket.url}/{uuid.uuid4()}"


@pytest.mark.long
@pytest.mark.parametrize("broker_server", list(BROKER_SERVERS), indirect=True)
async def test_kills_never_lose_or_repeat_a_reading(broker_server, stores, tmp_path):
    """Broker and service are killed at random moments. Each reading is in the bucket once, and the queue is empty."""
    broker, env = broker_server
    bucket, name, chance = stores("moto"), create_queue_name(), random.Random(7)
    count, ages = (MANY, [3]) if broker.kind == "rabbitmq" else (FEW, [2, 4])
    kills = KILLS[broker.kind]
    await broker.create_queue(name)
    config = SimulatorConfig(pairs=count, limit=100_000_000, api_key=KEY)
    async with Simulator(config) as simulator, AsyncExitStack() as stack:
        plan = {"workspaces.eu": {"ages_days": [age / DAY_SECONDS for age in ages]}}
        service = Serving(tmp_path, simulator.url, place(bucket), env=bucket.env | env,
                          **plan, **trigger(broker, name))  # fmt: skip
        sent = messages(simulator, each=25)
        stack.callback(service.end)
        service.start()

        def progress():
            return service.accepted() + simulator.responses.total()

        for at, killed in enumerate(kills):
            await broker.send(name, *sent[at :: len(kills)])
            goal = progress() + chance.randrange(count // len(kills))
            await wait_until(lambda goal=goal: progress() >= goal)
            if killed != "service":
                broker.interrupt()
            if killed != "broker":
                service.kill()
                service.start()
            if killed != "service":
                await broker.restore()
            await broker.expire_leases(name)
        await wait_until(lambda: service.settled() == count)
        code, err = await service.stop()
        assert (code, "Traceback" in err) == (0, False), err
        assert (await service.run_to_end("--until-idle"))[0] == 0  # messages may return late
        found, books = captures(bucket, service.out), await service.status()
    assert set(found.values()) == {1}
    assert {each[:2] for each in found if each[2] == "final"} == {
        (each.pair.campaign_id, each.pair.send_id) for each in simulator.population
    }
    assert found == Counter(service.query(
        "SELECT campaign_id, send_id, outcome.reading FROM outcome JOIN pair ON pair.id = pair_id"
    ))  # fmt: skip
    assert books["books"]["balanced"]
    assert (books["books"]["accepted"], sum(books["books"]["captured"].values())) == (count, count)
    assert list(books["batches"]) == ["stored"]
    assert await broker.count_messages(name) == 0
    assert await broker.list_dead_letters(name) == []


@pytest.mark.long
@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_until_idle_reads_all_messages_and_the_files_that_they_name(broker_server, stores, tmp_path):
    """A pair, a file that a message names, and an event of a store are captured, and the exit code is 0."""
    (broker, _), bucket, name = broker_server, stores("moto"), create_queue_name()
    async with Simulator(SimulatorConfig(pairs=3, limit=1_000_000, api_key=KEY)) as simulator:
        pairs = [each.pair for each in simulator.population]
        for pair in pairs[1:]:
            text = f"campaign_id,send_id\n{pair.campaign_id},{pair.send_id}\n"
            s3(bucket.port).put_object(Bucket=BUCKET, Key=f"lists/{name}/{pair.send_id}.csv", Body=text.encode())
        key = f"lists/{name}/{pairs[2].send_id}.csv"
        event = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                 "s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}}  # fmt: skip
        await broker.send(
            name,
            json.dumps({"version": 1, "campaign_id": pairs[0].campaign_id, "send_id": pairs[0].send_id}).encode(),
            json.dumps({"version": 1, "file": f"s3://{BUCKET}/lists/{name}/{pairs[1].send_id}.csv"}).encode(),
            json.dumps({"Records": [event]}).encode(),
        )
        service = Serving(tmp_path, simulator.url, str(tmp_path / "out"), env=bucket.env,
                          **trigger(broker, name, prefixes=[f"s3://{BUCKET}/lists"]))  # fmt: skip
        code, err = await service.run_to_end("--until-idle")
    assert code == 0, err
    rows = [row for row in read_rows(tmp_path / "out") if row["level"] == "capture"]
    assert {(row["campaign_id"], row["send_id"]) for row in rows} == {
        (each.campaign_id, each.send_id) for each in pairs
    }
    assert (await broker.count_messages(name), await broker.list_dead_letters(name)) == (0, [])


async def test_a_wait_for_the_rate_limit_ends_with_the_first_signal(tmp_path):
    """While the service waits an hour, the metrics show the hold. SIGTERM ends the process, as the log says."""
    async with Simulator(SimulatorConfig(pairs=5, limit=0, api_key=KEY)) as simulator:
        service = Serving(tmp_path, simulator.url, "out")
        await service.enqueue(simulator, 0, 5)
        service.start("--log-level", "info")
        await service.wait_for_page("/metrics", word='harvester_hold{workspace="eu",cause="throttled"} 1')
        await service.wait_for_page("/readyz", 200)
        code, err = await service.stop()
        events = [json.loads(line)["event"] for line in err.splitlines()]
        assert (code, events[0], events[-1]) == (0, "service_started", "service_stopped")
        assert (await service.status())["books"]["pending"] == 5
        assert list(simulator.responses) == ["429"]


async def test_the_second_signal_ends_the_process_at_once_and_loses_nothing(tmp_path):
    """While requests hang, the first signal waits for them and the second does not. The next start captures them."""
    async with Simulator(SimulatorConfig(pairs=5, limit=1_000_000, api_key=KEY, latency_seconds=3600)) as simulator:
        service = Serving(tmp_path, simulator.url, "out")
        await service.enqueue(simulator, 0, 5)
        service.start()
        await service.wait_for_page("/metrics", word='harvester_requests_in_flight{workspace="eu"} 1')
        service.process.terminate()
        await asyncio.to_thread(lambda: next(line for line in service.process.stderr if b"stop_requested" in line))
        assert (await service.stop())[0] == 130
    async with Simulator(SimulatorConfig(pairs=5, limit=1_000_000, api_key=KEY)) as simulator:
        service = Serving(tmp_path, simulator.url, "out")
        assert (await service.run_to_end("--until-idle"))[0] == 0
    found = Counter(row["send_id"] for row in read_rows(tmp_path / "out") if row["level"] == "capture")
    assert found == Counter(each.pair.send_id for each in simulator.population)


async def test_a_halted_workspace_affects_no_other_and_recovers_with_a_new_key(tmp_path):
    """The metrics show the workspace and the cause. The process uses a key that is replaced in its file."""
    wrong = tmp_path / "other.key"
    wrong.write_text("canary-key-that-is-wrong")
    async with Simulator(SimulatorConfig(pairs=10, limit=1_000_000, api_key=KEY)) as simulator:
        service = Serving(tmp_path, simulator.url, "out",
                          **{"workspaces.eu": {}, "workspaces.other": {"api_key_file": str(wrong)}})  # fmt: skip
        await service.start_once()
        await service.enqueue(simulator, 0, 5, "other")
        await service.enqueue(simulator, 5, 10)
        async with service.running():
            await service.wait_for_page(
                "/metrics", word='harvester_condition{cause="status_401",component="key",subject="other"} 1.0'
            )
            assert "Workspace &#34;other&#34; is halted: status 401" in await service.wait_for_page("/")
            await wait_until(lambda: service.settled() == 5)
            await service.wait_for_page("/readyz", 200)
            assert list((await service.status())["halted"]) == ["other"]
            refused = simulator.responses["401"]
            wrong.write_text(KEY)
            await wait_until(lambda: service.settled() == 10)
            metrics = await service.wait_for_page("/metrics", word='harvester_workspace_halted{workspace="other"} 0')
            assert 'component="key"' not in metrics
            assert (await service.status())["halted"] == {}
        assert simulator.responses["401"] == refused


@pytest.mark.long
async def test_a_service_reads_pairs_that_another_process_enqueues(tmp_path):
    """Pairs that a command adds to the ledger of a running service are read."""
    async with Simulator(SimulatorConfig(pairs=4, limit=1_000_000, api_key=KEY)) as simulator:
        service = Serving(tmp_path, simulator.url, "out", **{"workspaces.eu": {"ages_days": [10 / DAY_SECONDS]}})
        await service.start_once()
        await service.enqueue(simulator, 0, 1)
        async with service.running():
            await wait_until(lambda: service.captured() >= 1)
            await service.enqueue(simulator, 1, 4)
            await wait_until(lambda: service.settled() == 4)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_a_new_ledger_is_refused_at_a_used_place_until_it_is_rebuilt(request, tmp_path, kind):
    """Rebuilding restores the plan, and nothing is requested again."""
    bucket = request.getfixturevalue("stores")("moto") if kind == "bucket" else None
    out, env = (place(bucket), bucket.env) if bucket else ("out", None)
    two = {"ages_days": [1 / DAY_SECONDS, 1]}
    async with Simulator(SimulatorConfig(pairs=21, limit=1_000_000, api_key=KEY)) as simulator:
        service = Serving(tmp_path, simulator.url, out, env=env, **{"workspaces.eu": {}, "workspaces.other": two})
        await service.start_once()
        long_ago = datetime.fromtimestamp(time.time() - 7200, UTC).isoformat()
        await service.enqueue(simulator, 0, 10, sent_at=long_ago)
        await service.enqueue(simulator, 10, 20, "other", sent_at=long_ago)
        async with service.running():
            await wait_until(lambda: service.captured() == 20)
        plan = "SELECT workspace, send_id, state, reading, round(due_at), verdict FROM pair WHERE state = 'waiting'"
        planned, asked = service.query(plan + " ORDER BY send_id"), simulator.responses.total()
        service.ledger.unlink()
        code, err = await service.run_to_end()
        assert (code, "harvester ledger rebuild" in err, "Traceback" in err) == (5, True, False), err
        assert service.accepted() == 0
        code, _, err = await service.command.run("ledger", "rebuild", out, "--config", "h.toml")
        assert (code, err.endswith(f"from {out}: 20 pairs\n")) == (0, True), err
        assert (
            "there is nothing to rebuild"
            in (await service.command.run("ledger", "rebuild", out, "--config", "h.toml"))[2]
        )
        async with service.running():
            assert service.query(plan + " ORDER BY send_id") == planned
            assert service.settled() == 10
            await service.wait_for_page("/readyz", 200)
        assert simulator.responses.total() == asked
        await service.enqueue(simulator, 20, 21, sent_at=long_ago)
        assert (await service.run_to_end("--until-idle"))[0] == 0
        assert simulator.responses.total() == asked + 1


async def test_pairs_are_removed_by_command_and_all_figures_agree(tmp_path):
    """Removed pairs are not counted any more, and metrics, page and ``status`` show the same figures."""
    async with Simulator(SimulatorConfig(pairs=6, limit=1_000_000, api_key=KEY)) as simulator:
        service = Serving(tmp_path, simulator.url, "out", **{"workspaces.eu": {"ages_days": [1]}})
        await service.start_once()
        await service.enqueue(simulator, 0, 2, sent_at=datetime.now(UTC).isoformat())
        assert (await service.command.run("ledger", "backup", "copy.db"))[0] == 0
        code, out, err = await service.command.run("status", "--state", "copy.db", "--json")
        assert (code, json.loads(out)["books"]["pending"]) == (0, 2), err
        await service.enqueue(simulator, 2, 5)
        async with service.running():
            await wait_until(lambda: service.captured() == 3)
            code, out, _ = await service.command.run("remove", "p.csv")
            assert (code, out.startswith("removed 3 of 3 pairs")) == (0, True)
            books = (await service.status())["books"]
            assert (books["accepted"], books["pending"]) == (2, 2)
            await service.wait_for_page("/metrics", word="harvester_accepted_pairs 2.0")
            metrics = await service.wait_for_page(
                "/metrics", word='harvester_readings{workspace="eu",state="waiting"} 2'
            )
            assert 'harvester_pairs{outcome="pending"} 2.0' in metrics
            assert "harvester_books_balanced 1.0" in metrics
            assert "readings waiting" in await service.wait_for_page("/")
        assert (await service.run_to_end("--until-idle"))[0] == 0
        assert simulator.responses == {"200": 3}
