"""Puts into object stores that cut connections, change bytes or overwrite: a part is stored once and complete."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harvester.errors import PartConflict, SinkError
from harvester.model import DATASET
from harvester.storage import share_clients
from harvester.storage.bucket import BucketSink
from harvester.storage.object_store import ObjectStore
from tests.support.buckets import connect_to, make_part
from tests.support.tcp_proxy import TcpProxy


@pytest.mark.parametrize("cut", ["before", "within", "after"])
@pytest.mark.parametrize(
    "name", ["moto", *(pytest.param(each, marks=pytest.mark.long) for each in ("radosgw", "azurite", "gcs"))]
)
async def test_a_connection_cut_at_any_put_changes_nothing(stores, monkeypatch, fast_retries, name, cut):
    """A put that is cut at any point is retried and succeeds. The part exists once and is complete."""
    bucket = stores(name)
    puts = 0

    def every_second(method: str, _target: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return cut if method == "PUT" and puts % 2 else None

    async with TcpProxy(bucket.port, every_second) as proxy:
        url = connect_to(monkeypatch, bucket, proxy.port)
        sink = BucketSink(ObjectStore(url))
        assert await sink.attach("ledger") == await sink.attach("ledger")
        for number in range(3):
            await sink.create(make_part(b"rows" * 1000, str(number)))
        names = list(await asyncio.to_thread(lambda: list(ObjectStore(url).list_names(DATASET))))
        assert sorted(names) == [f"{DATASET}/{each}" for each in range(3)]
        assert [await ObjectStore(url).read(each) for each in names] == [b"rows" * 1000] * 3


@pytest.mark.xdist_group("radosgw")
async def test_a_put_that_changes_in_transit_is_sent_again(stores, monkeypatch, fast_retries):
    """An upload is signed over its digest, which the store checks, so no damaged part is stored."""
    bucket = stores("radosgw")
    puts = 0

    def first(method: str, _target: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return "flip" if method == "PUT" and puts == 1 else None

    async with TcpProxy(bucket.port, first) as proxy:
        url = connect_to(monkeypatch, bucket, proxy.port)
        with pytest.raises(SinkError):
            await BucketSink(ObjectStore(url)).create(make_part(b"rows" * 1000))
        assert not await asyncio.to_thread(lambda: list(ObjectStore(url).list_names(DATASET)))
        await BucketSink(ObjectStore(url)).create(make_part(b"rows" * 1000))
        assert await ObjectStore(url).read(f"{DATASET}/batch") == b"rows" * 1000


async def test_a_store_that_ignores_the_precondition_is_refused(stores, monkeypatch):
    """If a second create succeeds, parts could be lost. The sink checks this with equal bytes when it starts."""
    bucket = stores("moto")
    async with TcpProxy(bucket.port, lambda _method, _target: "unconditional") as proxy:
        sink = BucketSink(ObjectStore(connect_to(monkeypatch, bucket, proxy.port)))
        with pytest.raises(SinkError, match="overwrites objects"):
            await sink.attach("ledger")


async def test_an_existing_name_is_found_without_the_permission_to_overwrite(stores, monkeypatch):
    """A store may return 403 for an existing name. Equal bytes are then a success, different bytes a conflict."""
    bucket = stores("moto")
    async with TcpProxy(bucket.port) as proxy:
        sink = BucketSink(ObjectStore(connect_to(monkeypatch, bucket, proxy.port)))
        await sink.create(make_part(b"rows"))
        proxy.fate = lambda method, _target: "forbid" if method == "PUT" else None
        await sink.create(make_part(b"rows"))
        with pytest.raises(PartConflict):
            await sink.create(make_part(b"other rows"))
        with pytest.raises(SinkError, match="no permission"):
            await sink.create(make_part(b"rows", "another"))


async def test_places_in_one_bucket_share_its_client_and_need_no_thread(stores, monkeypatch):
    """Hundreds of new places are attached in seconds, since none loads certificates or waits for a thread."""
    url = connect_to(monkeypatch, stores("moto"), stores("moto").port)
    open_sink, release = share_clients(), threading.Event()
    first = open_sink(f"{url}/first")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # another client would not reach the store
    second = open_sink(f"{url}/second")
    threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(threads)
    threads.submit(release.wait)
    try:
        async with asyncio.timeout(20):
            assert await first.attach("ledger") != await second.attach("ledger")
    finally:
        release.set()
    await first.create(make_part(b"rows"))
    assert [await each.list_parts(DATASET) for each in (first, second)] == [{f"{DATASET}/batch"}, set()]
