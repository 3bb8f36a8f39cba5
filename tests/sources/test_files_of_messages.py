"""Tests of files in a bucket that messages name."""

import json
import shutil
import tempfile
from urllib.parse import quote_plus

import pytest
from aiohttp import web

from harvester.sources import importer
from harvester.storage import object_store as stores_module
from tests.support.object_stores import BUCKET, aws, s3
from tests.support.processes import serve_app
from tests.support.queues import (
    PAIR,
    one_broker,
    wait_until,
)


def encode_s3_event(*keys):
    """Return an S3 event that reports these objects of the bucket."""
    records = [
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}} for key in keys
    ]
    return json.dumps({"Records": records}).encode()


@pytest.fixture
def put_list(stores, monkeypatch):
    """A function that writes a file to a bucket, and returns the event that S3 sends for it."""
    bucket = stores("moto")
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)

    def put(key, data):
        s3(bucket.port).put_object(Bucket=BUCKET, Key=key, Body=data)
        return encode_s3_event(quote_plus(key))

    return put


@pytest.fixture
def store(monkeypatch):
    """A store whose objects are named after the status of their response. A 200 returns a list of one pair."""

    async def respond(request):
        key = request.match_info.get("key", "")
        if not key:
            return web.Response(text="<ListBucketResult></ListBucketResult>", content_type="application/xml")
        status = int(key.removeprefix("lists/").partition(".")[0])
        text = "campaign_id,send_id\nc,of-a-file\n" if status == 200 else "<Error><Code>Odd</Code></Error>"
        headers = {"ETag": '"1"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"}
        return web.Response(status=status, text=text, headers=headers)

    app = web.Application()
    app.router.add_get(f"/{BUCKET}", respond)
    app.router.add_get(f"/{BUCKET}/{{key:.*}}", respond)
    monkeypatch.setitem(stores_module._RETRIES, "max_retries", 0)
    with serve_app(app) as port:
        for name, value in aws(port).items():
            monkeypatch.setenv(name, value)
        yield


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_a_file_that_is_put_into_the_bucket_is_imported(queue, put_list):
    """Its pairs are enqueued page by page. If the file is invalid, the reason of the dead letter says why."""
    good = "campaign_id,send_id\n" + "".join(f"c,s{at}\n" for at in range(4500))
    valid = put_list("lists/one day/all of it.csv", good)
    partly_valid = put_list("lists/partly.csv", "campaign_id,send_id\nc,t\nc\n")
    missing = put_list("lists/absent.csv", "").replace(b"absent", b"gone")
    without_header = put_list("lists/broken.csv", "no header")
    await queue.broker_server.send(queue.name, valid, partly_valid, missing, without_header)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes.total() == 4 and trigger.empty)
        assert trigger.outcomes == {"enqueued": 1, "partly_enqueued": 1, "dead_lettered": 2}
    assert await queue.count_accepted() == 4501
    reasons = dict(await queue.broker_server.list_dead_letters(queue.name))
    assert "1 of 2 lines contain no pair: line 3" in reasons[partly_valid]
    assert "no such object" in reasons[missing]
    assert "must contain the columns" in reasons[without_header]


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_a_message_waits_while_the_store_of_its_file_is_unavailable(queue, put_list, stores, monkeypatch):
    """The message is valid, so it does not become a dead letter."""
    message = put_list("lists/later.csv", "campaign_id,send_id\nc,s\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setitem(stores_module._RETRIES, "max_retries", 0)
    await queue.broker_server.send(queue.name, message)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger._failures > 1)
        assert "cannot be reached" in trigger.problem
        for name, value in stores("moto").env.items():
            monkeypatch.setenv(name, value)
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert await queue.broker_server.list_dead_letters(queue.name) == []
    assert await queue.count_accepted() == 1


@one_broker
async def test_an_object_that_the_store_refuses_makes_its_message_a_dead_letter(queue, store, monkeypatch):
    """A few attempts are made for each status. Other files of the same message are read."""
    monkeypatch.setattr(importer, "MAX_ATTEMPTS", 2)
    statuses = (204, 302, 400, 403, 404, 409, 410, 412, 418, 503)
    events = {status: encode_s3_event(f"lists/{status}.csv") for status in statuses}
    both = encode_s3_event("lists/410.csv", "lists/200.csv")
    await queue.broker_server.send(queue.name, *events.values(), both, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes.total() == len(statuses) + 2 and trigger.empty)
        assert trigger._failures == 0
    assert trigger.outcomes == {"dead_lettered": len(statuses), "partly_enqueued": 1, "enqueued": 1}
    dead = dict(await queue.broker_server.list_dead_letters(queue.name))
    for status, event in events.items():
        assert f"{BUCKET}/lists" in dead[event], status
    assert "status code" not in str(dead)
    assert f"could not be read in {importer.MAX_ATTEMPTS} attempts" in dead[events[503]]
    assert dead[encode_s3_event("lists/410.csv")]
    assert set(queue.enqueued) == {("c", "s", False), ("c", "of-a-file", False)}


@one_broker
async def test_an_object_that_is_too_large_is_refused_before_it_is_copied(queue, store, monkeypatch):
    """If it is above the limit, or above half of the free space, its message becomes a dead letter."""
    usage = shutil.disk_usage("/")
    for limit, free, message in ((10, usage.free, "the limit is 10"), (1 << 30, 40, "half of the free space")):
        monkeypatch.setattr(stores_module, "MAX_OBJECT_BYTES", limit)
        monkeypatch.setattr(stores_module.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        await queue.broker_server.send(queue.name, encode_s3_event("lists/200.csv"), PAIR)
        async with queue.running_trigger() as trigger:
            await wait_until(
                lambda trigger=trigger: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty
            )
        assert message in (await queue.broker_server.list_dead_letters(queue.name))[-1][1]


@one_broker
async def test_without_a_temporary_folder_messages_with_files_are_dead_letters(queue, store, monkeypatch, tmp_path):
    """The trigger has a warning when it connects, and enqueues all other messages."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    await queue.broker_server.send(queue.name, encode_s3_event("lists/200.csv"), PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    ((_, reason),) = await queue.broker_server.list_dead_letters(queue.name)
    assert reason.startswith("there is no folder for temporary files")
    (warning,) = trigger.warnings
    assert "set TMPDIR" in warning
