"""Errors of object stores: each says what happened and what to do, without a secret."""

from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from harvester.errors import SinkError, UsageError
from harvester.storage import object_store as stores_module
from harvester.storage.bucket import BucketSink
from harvester.storage.object_store import ObjectStore
from tests.support.buckets import connect_to, make_part
from tests.support.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Bucket, s3
from tests.support.processes import serve_app
from tests.support.tcp_proxy import TcpProxy


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "NoSuchBucket", "no such bucket"),
        (404, "ContainerNotFound", "no such bucket"),
        (403, "InvalidAccessKeyId", "credentials are not accepted"),
        (403, "SignatureDoesNotMatch", "credentials are not accepted"),
        (400, "ExpiredToken", "expired"),
        (403, "AccessDenied", "no permission"),
        (403, "RequestTimeTooSkewed", "clock"),
        (301, "PermanentRedirect", "another region"),
        (400, "AuthorizationHeaderMalformed", "another region"),
        (507, "InsufficientStorage", "full"),
        (403, "QuotaExceeded", "full"),
        (503, "SlowDown", "503 SlowDown"),
        (500, "InternalError", "500 InternalError"),
        (409, "ConditionalRequestConflict", "try again"),
    ],
)
async def test_a_refusal_of_a_store_says_what_to_do(monkeypatch, fast_retries, status, code, message):
    """The error names the cause (bucket, region, credentials, permission, clock, full store) and contains no secret."""
    echo = f"<Error><Code>{code}</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId>{SECRET_KEY}</Error>"

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=echo, content_type="application/xml")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    with serve_app(app) as port:
        bucket = Bucket(
            "s3",
            "s3://lake",
            port,
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_REGION": "us-east-1",
            },
        )
        sink = BucketSink(ObjectStore(connect_to(monkeypatch, bucket, port)))
        with pytest.raises(SinkError, match=message) as caught:
            await sink.create(make_part(b"rows"))
    assert "s3://lake" in str(caught.value)
    assert ACCESS_KEY not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)


async def test_a_full_temporary_folder_is_not_blamed_on_the_store(stores, monkeypatch):
    """The error says that the disk of this machine is full, and names TMPDIR."""
    store = ObjectStore(connect_to(monkeypatch, stores("moto"), stores("moto").port))
    await store.create("part", b"rows")
    with pytest.raises(SinkError, match="No space left on device on this machine; set TMPDIR"):
        store.download("part", Path("/dev/full"))


async def test_a_foreign_object_with_an_invalid_name_is_an_error(stores, monkeypatch):
    """An object whose name is not a path makes every listing fail, so the error says what is wrong with the name."""
    bucket = stores("moto")
    url = connect_to(monkeypatch, bucket, bucket.port)
    s3(bucket.port).put_object(Bucket=BUCKET, Key=f"{url.removeprefix(bucket.url + '/')}/a//b", Body=b"")
    with pytest.raises(SinkError, match="contains //"):
        list(ObjectStore(url).list_names())


@pytest.mark.xdist_group("radosgw")
async def test_refusals_of_ceph_are_distinguished(stores, monkeypatch):
    """A missing bucket, a wrong secret and a wrong key on Ceph cause different errors."""
    bucket = stores("radosgw")
    url = connect_to(monkeypatch, bucket, bucket.port)
    with pytest.raises(SinkError, match="no such bucket"):
        await BucketSink(ObjectStore("s3://no-such-bucket/x")).attach("ledger")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-key")
    with pytest.raises(SinkError, match="credentials are not accepted"):
        await BucketSink(ObjectStore(url)).attach("ledger")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    with pytest.raises(SinkError, match="credentials are not accepted"):
        await BucketSink(ObjectStore(url)).attach("ledger")


async def test_requests_to_a_hanging_store_are_bounded(stores, monkeypatch, fast_retries):
    """Each request to a store that hangs times out, and the error says so."""
    monkeypatch.setitem(stores_module._CLIENT, "timeout", timedelta(milliseconds=100))
    bucket = stores("moto")
    async with TcpProxy(bucket.port, lambda _method, _target: "hang") as proxy:
        sink = BucketSink(ObjectStore(connect_to(monkeypatch, bucket, proxy.port)))
        with pytest.raises(SinkError, match="does not respond in time"):
            await sink.create(make_part(b"rows"))


async def test_a_wrong_endpoint_of_a_store_is_an_error(stores, monkeypatch, fast_retries):
    """The error says that the store cannot be reached."""
    with pytest.raises(SinkError, match="cannot be reached"):
        await BucketSink(ObjectStore(connect_to(monkeypatch, stores("moto"), 1))).attach("ledger")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("az://container/x", "az://container/x.*ACCOUNT_NAME"),
    ],
)
def test_an_invalid_place_is_refused_before_anything_is_sent(url, message):
    """A URL without a bucket is refused, and Azure without an account."""
    with pytest.raises(UsageError, match=message):
        ObjectStore(url)
