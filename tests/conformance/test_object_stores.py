"""Buckets that cut, hang, refuse, go away and come back: nothing sealed is lost, nothing is there twice."""

import asyncio
import csv
import hashlib
import json
import random
import sqlite3
import uuid
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard
from aiohttp import web

from harvester.clock import SystemClock
from harvester.engine.storing import Storing, recover
from harvester.errors import PartConflict, SinkError, UsageError
from harvester.ledger import Ledger
from harvester.ledger.books import batch_counts
from harvester.ledger.intake import enqueue
from harvester.model import DATASET, Captured, Enqueued, Pair, Part, Settlement, Verdict
from harvester.simulator import Simulator, SimulatorConfig
from harvester.storage import FolderSink
from harvester.storage import object_store as stores_module
from harvester.storage.bucket import BucketSink
from harvester.storage.object_store import Store
from tests.conftest import KEY, Command
from tests.support.servers import ACCESS_KEY, BUCKET, SECRET_KEY, Bucket, s3, served
from tests.support.tcp_proxy import Cutter
from tests.support.warm_process import fork

PAIRS = 150
"""Two batches: the first has a hundred readings."""


def part(data: bytes, name: str = "batch") -> Part:
    """Make a part of these bytes."""
    return Part(DATASET, f"{DATASET}/{name}", hashlib.sha256(data).hexdigest(), len(data), 1, data)


def use(monkeypatch, bucket: Bucket, port: int) -> str:
    """Let this process find a bucket through a port; gives the URL of a place of its own in it."""
    for name, value in bucket.through(port).items():
        monkeypatch.setenv(name, value)
    return f"{bucket.url}/{uuid.uuid4()}"


@pytest.fixture
def hasty(monkeypatch):
    """Let tries follow each other at once."""
    soon = timedelta(milliseconds=1)
    monkeypatch.setitem(stores_module._RETRIES, "backoff", {"init_backoff": soon, "max_backoff": soon, "base": 2})


@pytest.mark.parametrize("cut", ["before", "within", "after"])
@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite", "gcs"])
async def test_a_connection_cut_at_any_put_changes_nothing(stores, monkeypatch, hasty, name, cut):
    """Whichever put is cut, wherever: the part ends there once, whole, and success is told."""
    bucket = stores(name)
    puts = 0

    def every_second(method: str, _target: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return cut if method == "PUT" and puts % 2 else None

    async with Cutter(bucket.port, every_second) as cutter:
        url = use(monkeypatch, bucket, cutter.port)
        sink = BucketSink(Store(url))
        assert await sink.attach("ledger") == await sink.attach("ledger")
        for number in range(3):
            await sink.create(part(b"rows" * 1000, str(number)))
        names = list(await asyncio.to_thread(lambda: list(Store(url).names(DATASET))))
        assert sorted(names) == [f"{DATASET}/{each}" for each in range(3)]
        assert [await Store(url).read(each) for each in names] == [b"rows" * 1000] * 3


async def test_what_changes_on_its_way_is_not_taken_and_sent_again(stores, monkeypatch, hasty):
    """An upload is signed over its digest, which the store holds against what came: no damaged part ever stands."""
    bucket = stores("radosgw")
    puts = 0

    def first(method: str, _target: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return "flip" if method == "PUT" and puts == 1 else None

    async with Cutter(bucket.port, first) as cutter:
        url = use(monkeypatch, bucket, cutter.port)
        with pytest.raises(SinkError):
            await BucketSink(Store(url)).create(part(b"rows" * 1000))
        assert not await asyncio.to_thread(lambda: list(Store(url).names(DATASET)))
        await BucketSink(Store(url)).create(part(b"rows" * 1000))
        assert await Store(url).read(f"{DATASET}/batch") == b"rows" * 1000


async def test_a_store_that_ignores_the_precondition_is_refused(stores, monkeypatch):
    """Where a second create is let through, parts could be lost: it is found at the start, by harmless bytes."""
    bucket = stores("moto")
    async with Cutter(bucket.port, lambda _method, _target: "unconditional") as cutter:
        sink = BucketSink(Store(use(monkeypatch, bucket, cutter.port)))
        with pytest.raises(SinkError, match="overwrites objects"):
            await sink.attach("ledger")


@pytest.mark.parametrize(
    ("status", "code", "told"),
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
async def test_what_a_store_refuses_is_a_sentence_that_tells_what_to_do(monkeypatch, hasty, status, code, told):
    """Wrong bucket, region, credentials, permission, clock, a full store: each is named, and no secret with it."""
    echo = f"<Error><Code>{code}</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId>{SECRET_KEY}</Error>"

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=echo, content_type="application/xml")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    with served(app) as port:
        bucket = Bucket("s3", "s3://lake", port, {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
        })  # fmt: skip
        sink = BucketSink(Store(use(monkeypatch, bucket, port)))
        with pytest.raises(SinkError, match=told) as caught:
            await sink.create(part(b"rows"))
    assert "s3://lake" in str(caught.value)
    assert ACCESS_KEY not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)


async def test_a_taken_name_is_found_where_the_store_forbids_to_overwrite(stores, monkeypatch):
    """To one who may only create, a store may answer 403 and not that the name is taken: what lies there decides."""
    bucket = stores("moto")
    async with Cutter(bucket.port) as cutter:
        sink = BucketSink(Store(use(monkeypatch, bucket, cutter.port)))
        await sink.create(part(b"rows"))
        cutter.fate = lambda method, _target: "forbid" if method == "PUT" else None
        await sink.create(part(b"rows"))
        with pytest.raises(PartConflict):
            await sink.create(part(b"other rows"))
        with pytest.raises(SinkError, match="no permission"):
            await sink.create(part(b"rows", "another"))


async def test_a_copy_that_finds_no_room_blames_this_machine(stores, monkeypatch):
    """The store is well; what is full is the folder for temporary files."""
    store = Store(use(monkeypatch, stores("moto"), stores("moto").port))
    await store.create("part", b"rows")
    with pytest.raises(SinkError, match="No space left on device on this machine; set TMPDIR"):
        store.fetch("part", Path("/dev/full"))


async def test_a_stranger_s_odd_name_is_told(stores, monkeypatch):
    """A name that no path can spell is in the way of every listing, so it must be said what is wrong."""
    bucket = stores("moto")
    url = use(monkeypatch, bucket, bucket.port)
    s3(bucket.port).put_object(Bucket=BUCKET, Key=f"{url.removeprefix(bucket.url + '/')}/a//b", Body=b"")
    with pytest.raises(SinkError, match="an empty part"):
        list(Store(url).names())


async def test_real_refusals_are_told_apart(stores, monkeypatch):
    """What Ceph says of a wrong key, a wrong secret, a missing bucket and another's bucket is understood."""
    bucket = stores("radosgw")
    url = use(monkeypatch, bucket, bucket.port)
    with pytest.raises(SinkError, match="no such bucket"):
        await BucketSink(Store("s3://no-such-bucket/x")).attach("ledger")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SinkError, match="credentials are not accepted"):
        await BucketSink(Store(url)).attach("ledger")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    with pytest.raises(SinkError, match="credentials are not accepted"):
        await BucketSink(Store(url)).attach("ledger")


async def test_a_store_that_hangs_is_given_up_in_time(stores, monkeypatch, hasty):
    """A full store may just hang: each request is bounded, and what it waits for is told."""
    monkeypatch.setitem(stores_module._CLIENT, "timeout", timedelta(milliseconds=100))
    bucket = stores("moto")
    async with Cutter(bucket.port, lambda _method, _target: "hang") as cutter:
        sink = BucketSink(Store(use(monkeypatch, bucket, cutter.port)))
        with pytest.raises(SinkError, match="does not answer in time"):
            await sink.create(part(b"rows"))


async def test_nobody_at_the_store_s_address_is_told(stores, monkeypatch, hasty):
    """A wrong endpoint is a sentence."""
    with pytest.raises(SinkError, match="cannot be reached"):
        await BucketSink(Store(use(monkeypatch, stores("moto"), 1))).attach("ledger")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("az://container/x", "az://container/x.*ACCOUNT_NAME"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_anything_is_sent(url, said):
    """A name without a bucket, and Azure without an account."""
    with pytest.raises(UsageError, match=said):
        Store(url)


class Scene:
    """A run into a bucket, and a judge that looks at the bucket, the log of the API and the ledger."""

    def __init__(self, folder: Path, bucket: Bucket, port: int, simulator: Simulator, log: Path) -> None:
        """Give the run a place of its own in the bucket, which it reaches through ``port``."""
        folder.mkdir()
        self.bucket, self.simulator, self.log, self.folder = bucket, simulator, log, folder
        self.url = f"{bucket.url}/{uuid.uuid4()}"
        self.command = Command(folder)
        self.command.env |= bucket.through(port) | {"HARVESTER_PATIENCE_SECONDS": "0"}
        self.arguments = ("run", "p.csv", "--endpoint", simulator.url, "-o", self.url, "--state", "ledger.db")
        with (folder / "p.csv").open("w", newline="") as file:
            rows = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
            csv.writer(file).writerows([("campaign_id", "send_id"), *rows])

    def asked(self) -> Counter:
        """How often each pair was asked so far, by all runs of all scenes."""
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines()] if self.log.exists() else []
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
            store = Store(self.url)
            names = await asyncio.to_thread(lambda: list(store.names(DATASET)))
            return {name: await store.read(name) for name in names}


def rows_in(objects: dict[str, bytes]) -> list[dict]:
    """All rows of parts."""
    parts = [zstandard.ZstdDecompressor().decompressobj().decompress(data) for data in objects.values()]
    return [json.loads(line) for data in parts for line in data.splitlines()]


def captures(objects: dict[str, bytes]) -> Counter:
    """How often each pair was captured, by the rows in the bucket."""
    return Counter((row["campaign_id"], row["send_id"]) for row in rows_in(objects) if row["level"] == "capture")


@pytest.mark.parametrize("cut", ["before", "within", "after"])
@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite"])
async def test_killed_at_each_put_it_goes_on(stores, tmp_path, monkeypatch, name, cut):
    """SIGKILL at each put, and the put itself cut: nothing is missing, nothing twice, nothing sealed asked again."""
    bucket, log = stores(name), tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator, Cutter(bucket.port) as cutter:
        scene = Scene(tmp_path / "scene", bucket, cutter.port, simulator, log)
        settled: set[tuple[str, str]] = set()
        asked, before, code, kill_at = Counter(), {}, -9, 0
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

            cutter.fate = fate
            await asyncio.to_thread(process.join)
            code = process.exitcode
            assert code in (0, -9), (scene.folder / "output").read_text()
            assert not settled & set(scene.asked() - asked), "what was sealed was asked again"
            now = await scene.objects(monkeypatch)
            assert before.items() <= now.items(), "a part changed or vanished"
            settled, asked, before = scene.settled(), scene.asked(), now
        assert kill_at >= 4, "not every put was met"
        assert captures(now) == Counter((each.pair.campaign_id, each.pair.send_id) for each in simulator.population)


async def test_a_store_that_is_away_ends_the_run_with_all_sealed_and_the_next_one_stores_it(
    stores, tmp_path, monkeypatch
):
    """Harvesting goes on while the store is away; exit 5 says so, and what was sealed is stored without a call."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with (
        Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)) as simulator,
        Cutter(bucket.port) as cutter,
    ):
        scene = Scene(tmp_path / "scene", bucket, cutter.port, simulator, log)
        cutter.fate = lambda method, target: "before" if method == "PUT" and "captured_date" in target else None
        code, out, err = await scene.command.run(*scene.arguments, "--raw", "--json")
        assert code == 5, err
        assert "cannot be reached" in err
        assert json.loads(out)["books"]["pending"] == 0
        assert json.loads(out)["unstored_batches"] == 2
        assert await scene.objects(monkeypatch) == {}
        asked = scene.asked()
        cutter.fate = lambda _method, _target: None
        code, out, err = await scene.command.run(*scene.arguments, "--raw", "--json")
        assert code == 0, err
        assert scene.asked() == asked
        assert len(captures(await scene.objects(monkeypatch))) == PAIRS


async def test_a_run_that_begins_while_a_known_store_is_away_harvests_all_the_same(stores, tmp_path, monkeypatch):
    """A deadline does not wait for a bucket: what is asked meanwhile is sealed, and stored once the bucket is back."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with (
        Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)) as simulator,
        Cutter(bucket.port) as cutter,
    ):
        scene = Scene(tmp_path / "scene", bucket, cutter.port, simulator, log)
        listed = scene.folder / "p.csv"
        lines = listed.read_text().splitlines(keepends=True)
        listed.write_text("".join(lines[:6]))
        assert (await scene.command.run(*scene.arguments))[0] == 0
        listed.write_text("".join(lines))
        cutter.fate = lambda _method, _target: "before"
        code, out, err = await scene.command.run(*scene.arguments, "--json")
        assert code == 5, err
        assert json.loads(out)["books"]["pending"] == 0
        asked = scene.asked()
        cutter.fate = lambda _method, _target: None
        assert (await scene.command.run(*scene.arguments))[0] == 0
        assert scene.asked() == asked
        assert len(captures(await scene.objects(monkeypatch))) == PAIRS


async def test_a_stop_while_the_store_hangs_is_obeyed(stores, tmp_path):
    """The first signal lets what is in flight land; the second ends the run at once, and is no bug of ours."""
    bucket, hanging = stores("moto"), asyncio.Event()
    async with (
        Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator,
        Cutter(bucket.port) as cutter,
    ):
        scene = Scene(tmp_path / "scene", bucket, cutter.port, simulator, tmp_path / "log")

        def fate(method: str, target: str) -> str | None:
            if method == "GET" or "captured_date" not in target:
                return None
            hanging.set()
            return "hang"

        cutter.fate = fate
        process = scene.command.start(*scene.arguments)
        await hanging.wait()
        process.terminate()
        await asyncio.to_thread(lambda: next(line for line in process.stderr if b"stop_requested" in line))
        process.terminate()
        err = (await asyncio.to_thread(process.communicate))[1].decode()
        assert (process.returncode, err) == (130, "harvester: interrupted; run the same command again to go on\n")


async def test_raw_answers_are_kept_as_they_came(stores, tmp_path):
    """With --raw, a second dataset holds each answer to the letter."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        scene = Scene(tmp_path / "scene", bucket, bucket.port, simulator, log)
        assert (await scene.command.run(*scene.arguments, "--raw"))[0] == 0
    place = scene.url.removeprefix("s3://lake/")
    (raw,) = [data for name, data in bucket.objects().items() if name.startswith(f"{place}/raw_answers/")]
    rows = [json.loads(line) for line in zstandard.ZstdDecompressor().decompressobj().decompress(raw).splitlines()]
    assert {(row["campaign_id"], row["send_id"]) for row in rows} == {
        (each.pair.campaign_id, each.pair.send_id) for each in simulator.population
    }
    assert all(json.loads(row["answer"])["message"] == "success" for row in rows)


async def test_pairs_come_from_a_bucket_and_the_latest_view_too(stores, tmp_path):
    """``run s3://…/pairs.csv`` and ``latest s3://…`` need no local copy made by hand."""
    bucket = stores("moto")
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        scene = Scene(tmp_path / "scene", bucket, bucket.port, simulator, tmp_path / "log")
        for name, value in bucket.env.items():
            scene.command.env[name] = value
        with pytest.MonkeyPatch.context() as patch:
            listed = use(patch, bucket, bucket.port)
            await Store(listed).create("p.csv", (scene.folder / "p.csv").read_bytes())
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
        assert (code, f"nothing was harvested in {listed}/empty" in err) == (2, True)


class LateClock(SystemClock):
    """The machine's clock, put forward by hand."""

    late = 0.0

    def wall(self) -> float:
        """UTC seconds since the epoch, and what was put forward."""
        return super().wall() + self.late


async def sealed(ledger: Ledger, count: int, destination: str) -> list[Part]:
    """Let a ledger hold ``count`` sealed batches of one pair each."""
    parts = []
    for number in range(count):
        pair = Pair("default", "c", str(number))
        await ledger.do(enqueue, [Enqueued(pair)], now=SystemClock().wall())
        batch = await ledger.claim("default", limit=1)
        made = part(b"x" * 700_000, batch.id)
        capture = Captured(Verdict.ZERO, batch.claimed_at, b"", 1)
        assert await ledger.seal(batch, [Settlement(batch.readings[0], capture)], [made], destination=destination)
        parts.append(made)
    return parts


@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite"])
async def test_a_store_away_for_longer_than_a_lease_gets_each_part_once(stores, tmp_path, monkeypatch, name):
    """Another process takes over what waits; then the store is back, and both create the same."""
    bucket, clock = stores(name), LateClock()
    async with Cutter(bucket.port) as cutter:
        url = use(monkeypatch, bucket, cutter.port)
        dataset = await BucketSink(Store(url)).attach("ledger")
        cutter.fate = lambda _method, _target: "before"
        async with (
            await Ledger.open(tmp_path / "ledger.db", clock=clock) as first,
            await Ledger.open(tmp_path / "ledger.db", clock=clock) as second,
        ):
            parts = await sealed(first, 2, dataset)
            clock.late = 3600.0
            storings = [
                Storing(each, BucketSink(Store(url)), clock=clock, jitter=random.Random(1), max_sealed_bytes=1 << 30,
                        patience_seconds=3600.0) for each in (first, second)
            ]  # fmt: skip
            for each in parts:
                storings[0].add(each.name.removeprefix(f"{DATASET}/"), each.size_bytes)
            await recover(second, storings[1], dataset, beginning=True)
            assert storings[1].waiting == 2

            async def away_then_back() -> None:
                while any(each.problem is None for each in storings):
                    await asyncio.sleep(0)
                cutter.fate = lambda _method, _target: None
                for each in storings:
                    each.finish()

            await asyncio.gather(away_then_back(), *(each.run() for each in storings))
            assert [each.problem for each in storings] == [None, None]
            assert await first.do(batch_counts) == {"stored": 2}
        assert [await Store(url).read(each.name) for each in parts] == [each.data for each in parts]


async def test_harvesting_pauses_when_too_much_is_sealed_and_goes_on_when_it_is_stored(stores, tmp_path, monkeypatch):
    """The ledger is no second lake: beyond the set number of bytes no batch is claimed until the store is back."""
    bucket, clock = stores("moto"), SystemClock()
    async with Cutter(bucket.port) as cutter, await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        url = use(monkeypatch, bucket, cutter.port)
        dataset = await BucketSink(Store(url)).attach("ledger")
        cutter.fate = lambda _method, _target: "before"
        storing = Storing(ledger, BucketSink(Store(url)), clock=clock, jitter=random.Random(1),
                          max_sealed_bytes=1 << 20, patience_seconds=3600.0)  # fmt: skip
        assert await storing.room()
        for each in await sealed(ledger, 2, dataset):
            storing.add(each.name.removeprefix(f"{DATASET}/"), each.size_bytes)
        running, waiting = asyncio.create_task(storing.run()), asyncio.create_task(storing.room())
        while storing.problem is None:
            await asyncio.sleep(0)
        assert not waiting.done()
        cutter.fate = lambda _method, _target: None
        assert await waiting
        storing.finish()
        await running
        assert storing.waiting == 0


async def test_bytes_that_went_bad_in_the_ledger_are_never_stored(tmp_path):
    """A sealed part whose bytes have changed on the disk is set aside with an alarm; the others are stored."""
    path, clock = tmp_path / "ledger.db", SystemClock()
    sink = FolderSink(tmp_path / "harvest")
    async with await Ledger.open(path, clock=clock) as ledger:
        dataset = await sink.attach(ledger.ledger_id)
        good, bad = await sealed(ledger, 2, dataset)
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE part SET data = CAST('y' || substr(data, 2) AS BLOB) WHERE name = ?", (bad.name,)
            )
        storing = Storing(ledger, sink, clock=clock, jitter=random.Random(1), max_sealed_bytes=1 << 30,
                          patience_seconds=0.0)  # fmt: skip
        for each in (bad, good):
            storing.add(each.name.removeprefix(f"{DATASET}/"), each.size_bytes)
        storing.finish()
        await storing.run()
        assert "damaged" in str(storing.problem)
        assert await ledger.do(batch_counts) == {"conflict": 1, "stored": 1}
    assert (tmp_path / "harvest" / good.name).read_bytes() == good.data
    assert not (tmp_path / "harvest" / bad.name).exists()


async def test_a_harvest_never_asks_a_store_to_delete(stores, tmp_path):
    """Create, read and list are all that it needs, so that is all its credentials must allow."""
    bucket = stores("moto")
    async with (
        Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator,
        Cutter(bucket.port) as cutter,
    ):
        scene = Scene(tmp_path / "scene", bucket, cutter.port, simulator, tmp_path / "log")
        for _ in range(2):
            assert (await scene.command.run(*scene.arguments))[0] == 0
    assert {each.split(" ")[0] for each in cutter.requests} == {"GET", "PUT"}
    place = scene.url.removeprefix("s3://lake/")
    listings = [each for each in cutter.requests if "list-type" in each]
    assert all(place in each for each in cutter.requests if each not in listings)
    assert all(f"prefix={place}" in each.replace("%2F", "/") for each in listings)


async def test_a_bucket_that_was_examined_is_still_anybody_s(stores, tmp_path, monkeypatch):
    """``doctor`` marks no bucket as a ledger's that it did not find: one small object stays, and a run goes well."""
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
