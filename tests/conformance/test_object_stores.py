"""Object stores that cut connections, hang, refuse or become unavailable: no sealed part is lost or stored twice."""

import asyncio
import csv
import hashlib
import json
import random
import sqlite3
import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
import zstandard
from aiohttp import web

from harvester.clock import SystemClock
from harvester.engine.batch_in_progress import MAX_OUTCOMES
from harvester.engine.uploader import Uploader
from harvester.errors import PartConflict, SinkError, UsageError
from harvester.ledger import Ledger
from harvester.model import DATASET, Batch, Captured, Pair, Part, SentPair, Settlement, Verdict
from harvester.simulator import Simulator, SimulatorConfig
from harvester.storage import FolderSink
from harvester.storage import object_store as stores_module
from harvester.storage.bucket import BucketSink
from harvester.storage.object_store import ObjectStore
from tests.conftest import KEY, Command
from tests.support.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Bucket, s3
from tests.support.processes import serve_app
from tests.support.tcp_proxy import TcpProxy
from tests.support.warm_process import fork

PAIRS = 150
PAIRS_OF_TWO_BATCHES = MAX_OUTCOMES + 100
"""Two batches: the first has a hundred readings."""


def part(data: bytes, name: str = "batch") -> Part:
    """Make a part of these bytes."""
    return Part(DATASET, f"{DATASET}/{name}", hashlib.sha256(data).hexdigest(), len(data), 1, data)


def use(monkeypatch, bucket: Bucket, port: int) -> str:
    """Connect this process to a bucket through a port; return the URL of a prefix of its own."""
    for name, value in bucket.env_through(port).items():
        monkeypatch.setenv(name, value)
    return f"{bucket.url}/{uuid.uuid4()}"


@pytest.fixture
def fast_retries(monkeypatch):
    """Retry without pauses."""
    soon = timedelta(milliseconds=1)
    monkeypatch.setitem(stores_module._RETRIES, "backoff", {"init_backoff": soon, "max_backoff": soon, "base": 2})


@pytest.mark.parametrize("cut", ["before", "within", "after"])
@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite", "gcs"])
async def test_a_connection_cut_at_any_put_changes_nothing(stores, monkeypatch, fast_retries, name, cut):
    """Whichever put is cut, and wherever: the part exists once, complete, and the put succeeds."""
    bucket = stores(name)
    puts = 0

    def every_second(method: str, _target: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return cut if method == "PUT" and puts % 2 else None

    async with TcpProxy(bucket.port, every_second) as proxy:
        url = use(monkeypatch, bucket, proxy.port)
        sink = BucketSink(ObjectStore(url))
        assert await sink.attach("ledger") == await sink.attach("ledger")
        for number in range(3):
            await sink.create(part(b"rows" * 1000, str(number)))
        names = list(await asyncio.to_thread(lambda: list(ObjectStore(url).list_names(DATASET))))
        assert sorted(names) == [f"{DATASET}/{each}" for each in range(3)]
        assert [await ObjectStore(url).read(each) for each in names] == [b"rows" * 1000] * 3


@pytest.mark.xdist_group("radosgw")
async def test_a_put_that_changes_in_transit_is_sent_again(stores, monkeypatch, fast_retries):
    """An upload is signed over its digest, which the store checks: no damaged part is ever stored."""
    bucket = stores("radosgw")
    puts = 0

    def first(method: str, _target: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return "flip" if method == "PUT" and puts == 1 else None

    async with TcpProxy(bucket.port, first) as proxy:
        url = use(monkeypatch, bucket, proxy.port)
        with pytest.raises(SinkError):
            await BucketSink(ObjectStore(url)).create(part(b"rows" * 1000))
        assert not await asyncio.to_thread(lambda: list(ObjectStore(url).list_names(DATASET)))
        await BucketSink(ObjectStore(url)).create(part(b"rows" * 1000))
        assert await ObjectStore(url).read(f"{DATASET}/batch") == b"rows" * 1000


async def test_a_store_that_ignores_the_precondition_is_refused(stores, monkeypatch):
    """A second create that succeeds could lose parts. The start tests it with harmless bytes."""
    bucket = stores("moto")
    async with TcpProxy(bucket.port, lambda _method, _target: "unconditional") as proxy:
        sink = BucketSink(ObjectStore(use(monkeypatch, bucket, proxy.port)))
        with pytest.raises(SinkError, match="overwrites objects"):
            await sink.attach("ledger")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "NoSuchBucket", "no such bucket"), (404, "ContainerNotFound", "no such bucket"),
        (403, "InvalidAccessKeyId", "credentials are not accepted"),
        (403, "SignatureDoesNotMatch", "credentials are not accepted"), (400, "ExpiredToken", "expired"),
        (403, "AccessDenied", "no permission"), (403, "RequestTimeTooSkewed", "clock"),
        (301, "PermanentRedirect", "another region"), (400, "AuthorizationHeaderMalformed", "another region"),
        (507, "InsufficientStorage", "full"), (403, "QuotaExceeded", "full"), (503, "SlowDown", "503 SlowDown"),
        (500, "InternalError", "500 InternalError"),
        (409, "ConditionalRequestConflict", "try again"),
    ],
)  # fmt: skip
async def test_a_refusal_of_a_store_says_what_to_do(monkeypatch, fast_retries, status, code, message):
    """Wrong bucket, region, credentials, permission, clock, a full store: the error names each, without a secret."""
    echo = f"<Error><Code>{code}</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId>{SECRET_KEY}</Error>"

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=echo, content_type="application/xml")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    with serve_app(app) as port:
        bucket = Bucket("s3", "s3://lake", port, {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
        })  # fmt: skip
        sink = BucketSink(ObjectStore(use(monkeypatch, bucket, port)))
        with pytest.raises(SinkError, match=message) as caught:
            await sink.create(part(b"rows"))
    assert "s3://lake" in str(caught.value)
    assert ACCESS_KEY not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)


async def test_an_existing_name_is_found_without_the_permission_to_overwrite(stores, monkeypatch):
    """A store may answer 403 instead of saying that the name exists: the object's bytes decide."""
    bucket = stores("moto")
    async with TcpProxy(bucket.port) as proxy:
        sink = BucketSink(ObjectStore(use(monkeypatch, bucket, proxy.port)))
        await sink.create(part(b"rows"))
        proxy.fate = lambda method, _target: "forbid" if method == "PUT" else None
        await sink.create(part(b"rows"))
        with pytest.raises(PartConflict):
            await sink.create(part(b"other rows"))
        with pytest.raises(SinkError, match="no permission"):
            await sink.create(part(b"rows", "another"))


async def test_a_full_temporary_folder_is_not_blamed_on_the_store(stores, monkeypatch):
    """The error names the folder for temporary files."""
    store = ObjectStore(use(monkeypatch, stores("moto"), stores("moto").port))
    await store.create("part", b"rows")
    with pytest.raises(SinkError, match="No space left on device on this machine; set TMPDIR"):
        store.download("part", Path("/dev/full"))


async def test_a_foreign_object_with_an_invalid_name_is_an_error(stores, monkeypatch):
    """A name that cannot be a path breaks every listing, so the error describes it."""
    bucket = stores("moto")
    url = use(monkeypatch, bucket, bucket.port)
    s3(bucket.port).put_object(Bucket=BUCKET, Key=f"{url.removeprefix(bucket.url + '/')}/a//b", Body=b"")
    with pytest.raises(SinkError, match="contains //"):
        list(ObjectStore(url).list_names())


@pytest.mark.xdist_group("radosgw")
async def test_refusals_of_ceph_are_distinguished(stores, monkeypatch):
    """Ceph's answers for a wrong key, a wrong secret, a missing bucket and another user's bucket are understood."""
    bucket = stores("radosgw")
    url = use(monkeypatch, bucket, bucket.port)
    with pytest.raises(SinkError, match="no such bucket"):
        await BucketSink(ObjectStore("s3://no-such-bucket/x")).attach("ledger")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SinkError, match="credentials are not accepted"):
        await BucketSink(ObjectStore(url)).attach("ledger")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    with pytest.raises(SinkError, match="credentials are not accepted"):
        await BucketSink(ObjectStore(url)).attach("ledger")


async def test_requests_to_a_hanging_store_are_bounded(stores, monkeypatch, fast_retries):
    """A full store may hang: each request ends in time, and the error says what it waited for."""
    monkeypatch.setitem(stores_module._CLIENT, "timeout", timedelta(milliseconds=100))
    bucket = stores("moto")
    async with TcpProxy(bucket.port, lambda _method, _target: "hang") as proxy:
        sink = BucketSink(ObjectStore(use(monkeypatch, bucket, proxy.port)))
        with pytest.raises(SinkError, match="does not respond in time"):
            await sink.create(part(b"rows"))


async def test_a_wrong_endpoint_of_a_store_is_an_error(stores, monkeypatch, fast_retries):
    """The error is a sentence."""
    with pytest.raises(SinkError, match="cannot be reached"):
        await BucketSink(ObjectStore(use(monkeypatch, stores("moto"), 1))).attach("ledger")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("az://container/x", "az://container/x.*ACCOUNT_NAME"),
    ],
)
def test_an_invalid_place_is_refused_before_anything_is_sent(url, message):
    """A name without a bucket, and Azure without an account."""
    with pytest.raises(UsageError, match=message):
        ObjectStore(url)


class Scene:
    """A run into a bucket, and a verdict from the bucket, the API's log and the ledger."""

    def __init__(self, folder: Path, bucket: Bucket, port: int, simulator: Simulator, log: Path) -> None:
        """Give the run a place of its own in the bucket, which it reaches through ``port``."""
        folder.mkdir()
        self.bucket, self.simulator, self.log, self.folder = bucket, simulator, log, folder
        self.url = f"{bucket.url}/{uuid.uuid4()}"
        self.command = Command(folder)
        self.command.env |= bucket.env_through(port) | {"HARVESTER_PATIENCE_SECONDS": "0"}
        self.arguments = ("run", "p.csv", "--endpoint", simulator.url, "-o", self.url, "--state", "ledger.db")
        with (folder / "p.csv").open("w", newline="") as file:
            rows = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
            csv.writer(file).writerows([("campaign_id", "send_id"), *rows])

    def requested(self) -> Counter:
        """How often each pair was requested so far, by all runs of all scenes."""
        lines = [orjson.loads(line) for line in self.log.read_bytes().splitlines()] if self.log.exists() else []
        return Counter((line["campaign_id"], line["send_id"]) for line in lines)

    def settled(self) -> set[tuple[str, str]]:
        """The pairs that the ledger holds as settled."""
        with sqlite3.connect(self.folder / "ledger.db") as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pair'").fetchone():
                return set()
            return set(connection.execute("SELECT campaign_id, send_id FROM pair WHERE state = 'settled'"))

    async def objects(self, monkeypatch) -> dict[str, bytes]:
        """All parts in the bucket, past the proxy."""
        with monkeypatch.context() as patch:
            for name, value in self.bucket.env.items():
                patch.setenv(name, value)
            store = ObjectStore(self.url)
            names = await asyncio.to_thread(lambda: list(store.list_names(DATASET)))
            return {name: await store.read(name) for name in names}


def rows_in(objects: dict[str, bytes]) -> list[dict]:
    """Return all rows of parts."""
    parts = [zstandard.ZstdDecompressor().decompressobj().decompress(data) for data in objects.values()]
    return [orjson.loads(line) for data in parts for line in data.splitlines()]


def captures(objects: dict[str, bytes]) -> Counter:
    """Count the captures of each pair, by the rows in the bucket."""
    return Counter((row["campaign_id"], row["send_id"]) for row in rows_in(objects) if row["level"] == "capture")


@pytest.mark.parametrize("cut", ["before", "within", "after"])
@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite"])
async def test_a_kill_at_each_put_loses_nothing(stores, tmp_path, monkeypatch, name, cut):
    """SIGKILL at each put, and a cut of the put itself: nothing is missing, written twice or requested again."""
    bucket, log = stores(name), tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=PAIRS_OF_TWO_BATCHES, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator, TcpProxy(bucket.port) as proxy:
        scene = Scene(tmp_path / "scene", bucket, proxy.port, simulator, log)
        settled: set[tuple[str, str]] = set()
        requested, before, code, kill_at = Counter(), {}, -9, 0
        while code != 0:
            kill_at += 1
            process, puts = fork(scene.command.folder, scene.command.env, *scene.arguments), 0

            def fate(method: str, _target: str, process=process, last=kill_at) -> str | None:
                nonlocal puts
                puts += method == "PUT"
                if method != "PUT" or puts < last:
                    return None
                process.kill()
                return cut

            proxy.fate = fate
            await asyncio.to_thread(process.join)
            code = process.exitcode
            assert code in (0, -9), (scene.folder / "output").read_text()
            assert not settled & set(scene.requested() - requested), "a sealed reading was requested again"
            now = await scene.objects(monkeypatch)
            assert before.items() <= now.items(), "a part changed or vanished"
            settled, requested, before = scene.settled(), scene.requested(), now
        assert kill_at >= 4, "not every put was reached"
        assert captures(now) == Counter((each.pair.campaign_id, each.pair.send_id) for each in simulator.population)


async def test_an_unavailable_store_ends_the_run_and_the_next_run_stores_the_parts(stores, tmp_path, monkeypatch):
    """Capturing continues while the store is away; the exit code is 5, and the next run stores without a request."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with (
        Simulator(SimulatorConfig(pairs=PAIRS_OF_TWO_BATCHES, limit=10_000_000, api_key=KEY, log=log)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        scene = Scene(tmp_path / "scene", bucket, proxy.port, simulator, log)
        proxy.fate = lambda method, target: "before" if method == "PUT" and "captured_date" in target else None
        code, out, err = await scene.command.run(*scene.arguments, "--raw", "--json")
        assert code == 5, err
        assert "cannot be reached" in err
        assert json.loads(out)["books"]["pending"] == 0
        assert json.loads(out)["unstored_batches"] == 2
        assert await scene.objects(monkeypatch) == {}
        requested = scene.requested()
        proxy.fate = lambda _method, _target: None
        code, out, err = await scene.command.run(*scene.arguments, "--raw", "--json")
        assert code == 0, err
        assert scene.requested() == requested
        assert len(captures(await scene.objects(monkeypatch))) == PAIRS_OF_TWO_BATCHES


async def test_a_run_starts_while_a_known_store_is_unavailable(stores, tmp_path, monkeypatch):
    """A deadline does not wait for a bucket: captures are sealed, and stored once the bucket is back."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with (
        Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        scene = Scene(tmp_path / "scene", bucket, proxy.port, simulator, log)
        listed = scene.folder / "p.csv"
        lines = listed.read_text().splitlines(keepends=True)
        listed.write_text("".join(lines[:6]))
        assert (await scene.command.run(*scene.arguments))[0] == 0
        listed.write_text("".join(lines))
        proxy.fate = lambda _method, _target: "before"
        code, out, err = await scene.command.run(*scene.arguments, "--json")
        assert code == 5, err
        assert json.loads(out)["books"]["pending"] == 0
        requested = scene.requested()
        proxy.fate = lambda _method, _target: None
        assert (await scene.command.run(*scene.arguments))[0] == 0
        assert scene.requested() == requested
        assert len(captures(await scene.objects(monkeypatch))) == PAIRS


async def test_signals_end_a_run_while_the_store_hangs(stores, tmp_path):
    """The first signal finishes requests in flight; the second ends the run at once, without a bug."""
    bucket, hanging = stores("moto"), asyncio.Event()
    async with (
        Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        scene = Scene(tmp_path / "scene", bucket, proxy.port, simulator, tmp_path / "log")

        def fate(method: str, target: str) -> str | None:
            if method == "GET" or "captured_date" not in target:
                return None
            hanging.set()
            return "hang"

        proxy.fate = fate
        process = scene.command.start_warm(*scene.arguments)
        await hanging.wait()
        process.terminate()
        await asyncio.to_thread(lambda: next(line for line in process.stderr if b"stop_requested" in line))
        process.terminate()
        err = (await asyncio.to_thread(process.communicate))[1].decode()
        assert (process.returncode, err) == (130, "harvester: interrupted; run the same command again to continue\n")


async def test_raw_answers_are_stored_unchanged(stores, tmp_path):
    """With --raw, a second dataset contains each response unchanged."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        scene = Scene(tmp_path / "scene", bucket, bucket.port, simulator, log)
        assert (await scene.command.run(*scene.arguments, "--raw"))[0] == 0
    place = scene.url.removeprefix("s3://lake/")
    (raw,) = [data for name, data in bucket.read_objects().items() if name.startswith(f"{place}/raw_answers/")]
    rows = [json.loads(line) for line in zstandard.ZstdDecompressor().decompressobj().decompress(raw).splitlines()]
    assert {(row["campaign_id"], row["send_id"]) for row in rows} == {
        (each.pair.campaign_id, each.pair.send_id) for each in simulator.population
    }
    assert all(json.loads(row["answer"])["message"] == "success" for row in rows)


async def test_lists_and_the_latest_view_are_read_from_a_bucket(stores, tmp_path):
    """``run s3://…/pairs.csv`` and ``latest s3://…`` need no local copy."""
    bucket = stores("moto")
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        scene = Scene(tmp_path / "scene", bucket, bucket.port, simulator, tmp_path / "log")
        for name, value in bucket.env.items():
            scene.command.env[name] = value
        with pytest.MonkeyPatch.context() as patch:
            listed = use(patch, bucket, bucket.port)
            await ObjectStore(listed).create("p.csv", (scene.folder / "p.csv").read_bytes())
        (scene.folder / "p.csv").unlink()
        code, _, err = await scene.command.run("plan", f"{listed}/p.csv")
        assert code == 0, err
        code, _, err = await scene.command.run("run", f"{listed}/p.csv", *scene.arguments[2:])
        assert code == 0, err
        code, out, err = await scene.command.run("latest", scene.url)
        assert code == 0, err
        assert len({json.loads(line)["send_id"] for line in out.splitlines()}) == 5
        code, _, err = await scene.command.run("plan", f"{listed}/missing.csv")
        assert (code, "missing.csv" in err, "Traceback" in err) == (2, True, False)
        code, _, err = await scene.command.run("latest", f"{listed}/empty")
        assert (code, f"{listed}/empty contains no parts" in err) == (2, True)


class LateClock(SystemClock):
    """The machine's clock, which the test moves forward."""

    late = 0.0

    def wall(self) -> float:
        """UTC seconds since the epoch, and what was put forward."""
        return super().wall() + self.late


async def seal_batches(ledger: Ledger, count: int, destination: str) -> list[Part]:
    """Seal ``count`` batches of one pair each in a ledger."""
    parts = []
    for number in range(count):
        pair = Pair("default", "c", str(number))
        await ledger.intake.enqueue([SentPair(pair)])
        (reading,) = await ledger.batches.claim({"default": 1})
        batch = Batch.open(ledger.clock.wall())
        made = replace(part(b"x" * 700_000, batch.id), destination=destination)
        ended = [Settlement(reading, Captured(Verdict.ZERO, batch.opened_at, b"", 1))]
        assert await ledger.batches.seal(batch, ended, [made])
        parts.append(made)
    return parts


def batch_of(part: Part) -> str:
    """Return the id of the batch that a part is named for."""
    return part.name.removeprefix(f"{DATASET}/")


@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite"])
async def test_a_store_away_for_longer_than_a_lease_gets_each_part_once(stores, tmp_path, monkeypatch, name):
    """Another process takes over the waiting parts; when the store is back, both create the same."""
    bucket, clock = stores(name), LateClock()
    async with TcpProxy(bucket.port) as proxy:
        url = use(monkeypatch, bucket, proxy.port)
        dataset = await BucketSink(ObjectStore(url)).attach("ledger")
        proxy.fate = lambda _method, _target: "before"
        async with (
            await Ledger.open(tmp_path / "ledger.db", clock=clock) as first,
            await Ledger.open(tmp_path / "ledger.db", clock=clock) as second,
        ):
            parts = await seal_batches(first, 2, dataset)
            clock.late = 3600.0
            uploaders = [
                Uploader(
                    each,
                    BucketSink(ObjectStore(url)),
                    clock=clock,
                    jitter=random.Random(1),
                    max_sealed_bytes=1 << 30,
                    patience_seconds=3600.0,
                )
                for each in (first, second)
            ]
            for each in parts:
                uploaders[0].add(batch_of(each), each.size_bytes)
            uploaders[1].destination = dataset
            assert await uploaders[1].recover() == []
            assert uploaders[1].waiting == 2

            async def away_then_back() -> None:
                while any(each.problem is None for each in uploaders):
                    await asyncio.sleep(0)
                proxy.fate = lambda _method, _target: None
                for each in uploaders:
                    each.finish()

            await asyncio.gather(away_then_back(), *(each.run() for each in uploaders))
            assert [each.problem for each in uploaders] == [None, None]
            assert await first.reports.count_batches() == {"stored": 2}
        assert [await ObjectStore(url).read(each.name) for each in parts] == [each.data for each in parts]


async def test_capturing_pauses_while_too_many_bytes_are_sealed(stores, tmp_path, monkeypatch):
    """Beyond the set number of bytes no batch is claimed until the store is back."""
    bucket, clock = stores("moto"), SystemClock()
    async with TcpProxy(bucket.port) as proxy, await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        url = use(monkeypatch, bucket, proxy.port)
        dataset = await BucketSink(ObjectStore(url)).attach("ledger")
        proxy.fate = lambda _method, _target: "before"
        uploader = Uploader(ledger, BucketSink(ObjectStore(url)), clock=clock, jitter=random.Random(1),
                            max_sealed_bytes=1 << 20, patience_seconds=3600.0)  # fmt: skip
        assert await uploader.wait_for_room()
        for each in await seal_batches(ledger, 2, dataset):
            uploader.add(batch_of(each), each.size_bytes)
        running, waiting = asyncio.create_task(uploader.run()), asyncio.create_task(uploader.wait_for_room())
        while uploader.problem is None:
            await asyncio.sleep(0)
        assert not waiting.done()
        proxy.fate = lambda _method, _target: None
        assert await waiting
        uploader.finish()
        await running
        assert uploader.waiting == 0


async def test_damaged_bytes_in_the_ledger_are_never_stored(tmp_path):
    """A sealed part whose bytes have changed on disk is set aside with an alarm; the others are stored."""
    path, clock = tmp_path / "ledger.db", SystemClock()
    sink = FolderSink(tmp_path / "harvest")
    async with await Ledger.open(path, clock=clock) as ledger:
        dataset = await sink.attach(ledger.ledger_id)
        good, bad = await seal_batches(ledger, 2, dataset)
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE part SET data = CAST('y' || substr(data, 2) AS BLOB) WHERE name = ?", (bad.name,)
            )
        uploader = Uploader(ledger, sink, clock=clock, jitter=random.Random(1), max_sealed_bytes=1 << 30,
                            patience_seconds=0.0)  # fmt: skip
        for each in (bad, good):
            uploader.add(batch_of(each), each.size_bytes)
        uploader.finish()
        await uploader.run()
        assert "damaged" in str(uploader.problem)
        assert await ledger.reports.count_batches() == {"conflict": 1, "stored": 1}
    assert (tmp_path / "harvest" / good.name).read_bytes() == good.data
    assert not (tmp_path / "harvest" / bad.name).exists()


async def test_a_harvest_never_asks_a_store_to_delete(stores, tmp_path):
    """It only creates, reads and lists, so its credentials need no other permission."""
    bucket = stores("moto")
    async with (
        Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        scene = Scene(tmp_path / "scene", bucket, proxy.port, simulator, tmp_path / "log")
        for _ in range(2):
            assert (await scene.command.run(*scene.arguments))[0] == 0
    assert {each.split(" ")[0] for each in proxy.requests} == {"GET", "PUT"}
    place = scene.url.removeprefix("s3://lake/")
    listings = [each for each in proxy.requests if "list-type" in each]
    assert all(place in each for each in proxy.requests if each not in listings)
    assert all(f"prefix={place}" in each.replace("%2F", "/") for each in listings)


async def test_doctor_claims_no_bucket(stores, tmp_path, monkeypatch):
    """``doctor`` does not mark a bucket without a marker: one small object stays, and a run works."""
    bucket = stores("moto")
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        scene = Scene(tmp_path / "scene", bucket, bucket.port, simulator, tmp_path / "log")
        for _ in range(2):
            code, out, err = await scene.command.run("doctor", "--endpoint", simulator.url, "-o", scene.url)
            assert code == 0, out + err
            assert not await scene.objects(monkeypatch)
        assert [path.name for path in scene.folder.iterdir()] == ["p.csv"]
        assert (await scene.command.run(*scene.arguments))[0] == 0
        code, out, err = await scene.command.run("doctor", *scene.arguments[2:])
        assert code == 0, out + err
