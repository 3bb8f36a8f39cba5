"""Sealed parts that wait for a place: each is stored once and unchanged."""

import asyncio
import random
import shutil
import sqlite3
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from harvester.clock import Clock, SystemClock
from harvester.engine.places import Places
from harvester.engine.uploader import Uploader
from harvester.ledger import Ledger
from harvester.model import DATASET, Batch, Captured, Pair, Part, ReadingOutcome, SentPair, Verdict
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import FolderSink, Sink, open_sink
from harvester.storage.bucket import BucketSink
from harvester.storage.object_store import ObjectStore
from tests.support.buckets import connect_to, make_part
from tests.support.tcp_proxy import TcpProxy


class AdjustableClock(SystemClock):
    """The clock of the machine, plus an offset that the test sets."""

    offset_seconds = 0.0

    def wall(self) -> float:
        """Return UTC seconds since the epoch, plus the offset."""
        return super().wall() + self.offset_seconds


async def seal_batches(ledger: Ledger, count: int, destination: str) -> list[Part]:
    """Seal ``count`` batches of one pair each in a ledger."""
    parts = []
    for number in range(count):
        pair = Pair("default", "c", str(number))
        await ledger.intake.enqueue([SentPair(pair)])
        (reading,) = await ledger.batches.claim({"default": 1})
        batch = Batch.open(ledger.clock.wall())
        made = replace(make_part(b"x" * 700_000, batch.id), destination=destination)
        ended = [ReadingOutcome(reading, Captured(Verdict.ZERO, batch.opened_at, b"", 1))]
        assert await ledger.batches.seal([(batch, ended, [made])])
        parts.append(made)
    return parts


async def start_uploader(
    ledger: Ledger, sink: Sink, dataset: str, *, clock: Clock, max_sealed_bytes: int = 1 << 30
) -> Uploader:
    """Return an uploader for one workspace, whose dataset the ledger has found at the place before."""
    places = Places(ledger, sink, open_sink)
    await ledger.upkeep.save_dataset(sink.place, dataset)
    await places.apply(Settings(workspaces={"default": Workspace(endpoint="https://rest.fra-01.braze.eu")}))
    await places.attach_all(clock)
    return Uploader(
        ledger, places, clock=clock, jitter=random.Random(1),
        max_sealed_bytes=max_sealed_bytes, patience_seconds=3600.0,
    )  # fmt: skip


def get_batch_id(part: Part) -> str:
    """Return the id of the batch in the name of a part."""
    return part.name.removeprefix(f"{DATASET}/")


@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite"])
async def test_a_store_away_for_longer_than_a_lease_gets_each_part_once(stores, tmp_path, monkeypatch, name):
    """Another process recovers the waiting parts. Once the store is available, both processes create the same parts."""
    bucket, clock = stores(name), AdjustableClock()
    async with TcpProxy(bucket.port) as proxy:
        url = connect_to(monkeypatch, bucket, proxy.port)
        async with (
            await Ledger.open(tmp_path / "ledger.db", clock=clock) as first,
            await Ledger.open(tmp_path / "ledger.db", clock=clock) as second,
        ):
            dataset = await BucketSink(ObjectStore(url)).attach(first.ledger_id)
            proxy.fate = lambda _method, _target: "before"
            parts = await seal_batches(first, 2, dataset)
            clock.offset_seconds = 3600.0
            uploaders = [
                await start_uploader(each, BucketSink(ObjectStore(url)), dataset, clock=clock)
                for each in (first, second)
            ]
            for each in parts:
                uploaders[0].add(get_batch_id(each), dataset, each.size_bytes)
            assert await uploaders[1].recover() == []
            assert uploaders[1].waiting == 2

            async def restore_after_failures() -> None:
                while any(each.problem is None for each in uploaders):
                    await asyncio.sleep(0)
                proxy.fate = lambda _method, _target: None
                for each in uploaders:
                    each.finish()

            await asyncio.gather(restore_after_failures(), *(each.run() for each in uploaders))
            assert [each.problem for each in uploaders] == [None, None]
            assert await first.reports.count_batches() == {"stored": 2}
        assert [await ObjectStore(url).read(each.name) for each in parts] == [each.data for each in parts]


async def test_capturing_pauses_while_too_many_bytes_are_sealed(stores, tmp_path, monkeypatch):
    """Above ``max_sealed_bytes``, no reading is claimed until the store is available again."""
    bucket, clock = stores("moto"), SystemClock()
    async with TcpProxy(bucket.port) as proxy, await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        url = connect_to(monkeypatch, bucket, proxy.port)
        dataset = await BucketSink(ObjectStore(url)).attach(ledger.ledger_id)
        proxy.fate = lambda _method, _target: "before"
        uploader = await start_uploader(
            ledger, BucketSink(ObjectStore(url)), dataset, clock=clock, max_sealed_bytes=1 << 20
        )
        assert await uploader.wait_for_room("default")
        for each in await seal_batches(ledger, 2, dataset):
            uploader.add(get_batch_id(each), dataset, each.size_bytes)
        running, waiting = asyncio.create_task(uploader.run()), asyncio.create_task(uploader.wait_for_room("default"))
        while uploader.problem is None:
            await asyncio.sleep(0)
        assert not waiting.done()
        proxy.fate = lambda _method, _target: None
        assert await waiting
        uploader.finish()
        await running
        assert uploader.waiting == 0


async def test_damaged_bytes_in_the_ledger_are_never_stored(tmp_path):
    """A sealed part whose bytes changed on disk is reported and set aside; the others are stored."""
    path, clock = tmp_path / "ledger.db", SystemClock()
    sink = FolderSink(tmp_path / "harvest")
    async with await Ledger.open(path, clock=clock) as ledger:
        dataset = await sink.attach(ledger.ledger_id)
        good, bad = await seal_batches(ledger, 2, dataset)
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE part SET data = CAST('y' || substr(data, 2) AS BLOB) WHERE name = ?", (bad.name,)
            )
        uploader = await start_uploader(ledger, sink, dataset, clock=clock)
        for each in (bad, good):
            uploader.add(get_batch_id(each), dataset, each.size_bytes)
        uploader.finish()
        await uploader.run()
        assert "damaged" in str(uploader.problem)
        assert await ledger.reports.count_batches() == {"conflict": 1, "stored": 1}
    assert (tmp_path / "harvest" / good.name).read_bytes() == good.data
    assert not (tmp_path / "harvest" / bad.name).exists()


async def test_a_place_that_comes_back_empty_keeps_its_dataset(tmp_path):
    """An unmounted or deleted folder is reported once, and what is sealed for its dataset is stored in it."""
    clock, sink = SystemClock(), FolderSink(tmp_path / "harvest")
    async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
        dataset = await sink.attach(ledger.ledger_id)
        stored, sealed = await seal_batches(ledger, 2, dataset)
        uploader = await start_uploader(ledger, sink, dataset, clock=clock)
        uploader.add(get_batch_id(stored), dataset, stored.size_bytes)
        uploader.finish()
        await uploader.run()
        shutil.rmtree(sink.folder)
        with capture_logs() as logs:
            uploader = await start_uploader(ledger, sink, dataset, clock=clock)
            assert await uploader.recover() == []
            uploader.finish()
            await uploader.run()
            await start_uploader(ledger, sink, dataset, clock=clock)
        assert [(each["event"], each["place"], each["parts"]) for each in logs] == [("place_emptied", sink.place, 1)]
        assert (sink.folder / sealed.name).read_bytes() == sealed.data


def test_a_place_that_is_replaced_while_it_is_used_is_attached_again(tmp_path):
    """A folder that is deleted and created again lacks what an upload needs; the next attempt creates it."""
    clock, sink = VirtualClock(), FolderSink(tmp_path / "harvest")

    async def story() -> None:
        async with await Ledger.open(tmp_path / "ledger.db", clock=clock) as ledger:
            dataset = await sink.attach(ledger.ledger_id)
            uploader = await start_uploader(ledger, sink, dataset, clock=clock)
            shutil.rmtree(sink.folder)
            sink.folder.mkdir()
            (part,) = await seal_batches(ledger, 1, dataset)
            uploader.add(get_batch_id(part), dataset, part.size_bytes)
            uploader.finish()
            await uploader.run()
            assert uploader.problem is None
            assert (sink.folder / part.name).read_bytes() == part.data
            assert await sink.attach(ledger.ledger_id) == dataset

    run_virtual(story())
