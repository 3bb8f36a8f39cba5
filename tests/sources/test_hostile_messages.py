"""Tests of hostile messages on every broker: none ends the process or blocks the queue."""

import asyncio
import json
import re
import shutil
import ssl
import struct
import tempfile
from datetime import UTC, datetime

import aio_pika
import pytest
import structlog
from aiohttp import web

from harvester.errors import UsageError
from harvester.settings import load
from harvester.settings.triggers import NATS, RabbitMQ, Redis
from harvester.sources import importer
from harvester.sources.brokers.broker import PREFETCH_BYTES
from harvester.sources.brokers.problems import broker_error
from harvester.sources.brokers.redis_replies import BoundedParser
from harvester.storage import object_store as stores_module
from tests.conformance.test_brokers import PAIR, broker_server, ledger, pairs_message, queue, wait_until  # noqa: F401 - fixtures among them
from tests.support.brokers import BROKER_SERVERS
from tests.support.servers import BUCKET, aws, served

each_broker = pytest.mark.parametrize("broker_server", list(BROKER_SERVERS), indirect=True)
one_broker = pytest.mark.parametrize("broker_server", ["redis"], indirect=True)

DEEP = b"[" * 300 + b"]" * 300
BAD_PART = b'{"version": 1, "pairs": [{"campaign_id": "c", "send_id": "good"}, ' + DEEP + b"]}"
HARMFUL = [
    BAD_PART,
    b'{"version": 1, "pairs": [' + DEEP + b"]}",
    b'{"version": 1, "campaign_id": "c", "send_id": "s", "workspace": ' + DEEP + b"}",
    b'{"version": 1, "campaign_id": "c", "send_id": "s", "sent_at": ' + DEEP + b"}",
    b'{"version": 1, "campaign_id": ' + DEEP + b', "send_id": "s"}',
    b'{"Records": [' + DEEP + b"]}",
    b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": ' + DEEP + b"}]}",
    b'{"version": 1, "file": ' + DEEP + b"}",
    b'{"version": 1e400}',
    b'{"Type": "Notification", "Message": "' + b"[" * 2000 + b'"}',
    b'{"version": 1, "pairs": [' + b"7," * 1000 + b"7]}",
]


@each_broker
async def test_harmful_messages_are_dead_letters_and_do_not_block_the_queue(queue):  # noqa: F811
    """Each keeps its body and has a reason; its valid pairs and later messages are enqueued.

    An invalid part that is nested deeper than JSON can be written makes the whole message a dead letter.
    """
    await queue.broker_server.send(queue.name, *HARMFUL, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes.total() == len(HARMFUL) + 1 and trigger.empty)
        assert trigger.outcomes == {"dead_lettered": len(HARMFUL) - 1, "partly_enqueued": 1, "enqueued": 1}
        assert trigger._failures == 0
    dead = dict(await queue.broker_server.list_dead_letters(queue.name))
    assert set(dead) == set(HARMFUL)
    assert all(dead.values())
    assert "unexpected" not in str(dead.values())
    assert set(queue.enqueued) == {("c", "good", False), ("c", "s", False)}


@one_broker
async def test_an_unexpected_error_affects_only_the_message_that_causes_it(queue):  # noqa: F811
    """It becomes a dead letter after a few attempts; the log has the location in the code and nothing of the body."""
    harmful = pairs_message("poison-canary")
    await queue.broker_server.send(queue.name, PAIR, harmful, pairs_message("t"))
    attempts = 0

    async def raise_unexpected(arrivals, *, once):
        nonlocal attempts
        if any(each.pair.send_id == "poison-canary" for each in arrivals):
            attempts += 1
            raise KeyError("poison-canary")
        return await queue.enqueue(arrivals, once=once)

    with structlog.testing.capture_logs() as logs:
        async with queue.running_trigger(raise_unexpected) as trigger:
            await wait_until(lambda: trigger.outcomes == {"enqueued": 2, "dead_lettered": 1} and trigger.empty)
    ((body, reason),) = await queue.broker_server.list_dead_letters(queue.name)
    assert body == harmful
    assert reason.startswith("an unexpected error, KeyError at importer.py:")
    assert importer.MAX_ATTEMPTS <= attempts <= importer.MAX_ATTEMPTS + 3
    assert {each["error"] for each in logs if each["event"] == "bug_found"} == {"KeyError"}
    assert "canary" not in str(logs)


@pytest.mark.parametrize("broker_server", ["rabbitmq", "redis", "nats"], indirect=True)
async def test_large_messages_are_received_a_few_at_a_time_and_dead_lettered_whole(queue):  # noqa: F811
    """Later messages are enqueued. Entries of Redis are not fetched at all.

    No more is received at once than one large message and the bytes of a batch.
    """
    size = (1 << 20) - 1024 if queue.broker_server.kind == "nats" else PREFETCH_BYTES
    bodies = [b'{"version": 2, "x": "' + bytes([65 + at]) * size + b'"}' for at in range(3)]
    await queue.broker_server.send(queue.name, *bodies, PAIR)
    broker = queue.create_broker()
    await broker.open()
    received = await broker.receive()
    if queue.broker_server.kind == "nats":
        for each in received:
            await each.handle.nak()
    await broker.close()
    await queue.broker_server.expire_leases(queue.name)
    held_bytes = sum(len(each.body) for each in received)
    assert held_bytes <= {"rabbitmq": size + 100, "nats": PREFETCH_BYTES, "redis": 0}[queue.broker_server.kind]
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 3, "enqueued": 1} and trigger.empty)
    dead = await queue.broker_server.list_dead_letters(queue.name)
    assert sorted(body for body, _ in dead) == bodies
    assert await queue.broker_server.count_messages(queue.name) == 0


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_a_large_entry_stays_in_redis_if_scripts_are_not_allowed(queue):  # noqa: F811
    """The dead letter names the entry, so nothing is lost."""
    await queue.broker_server.send(queue.name, b"x" * PREFETCH_BYTES, PAIR)
    async with queue.broker_server.client() as redis:
        ((entry, _),) = await redis.xrange(queue.name, count=1)
        await redis.acl_setuser(
            "limited", enabled=True, passwords=["+secret-pass"], keys=["*"], commands=["+@all", "-eval"]
        )
    limited = queue.broker_server.url.replace("//:", "//limited:")
    async with queue.running_trigger(url=lambda: limited) as trigger:
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    async with queue.broker_server.client() as redis:
        ((_, fields),) = await redis.xrange(f"{queue.name}.dead")
        assert (fields[b"entry"], fields[b"body"]) == (entry, b"")
        assert b"8388608 bytes" in fields[b"reason"]
        assert [name for name, _ in await redis.xrange(queue.name)] == [entry]


@pytest.mark.parametrize("broker_server", ["rabbitmq"], indirect=True)
async def test_dead_letters_of_rabbitmq_drop_headers_that_route(queue, monkeypatch):  # noqa: F811
    """Headers of any kind or size do not prevent a dead letter.

    Neither do headers that no client can read, such as a date in milliseconds instead of seconds: the year 292278994.
    """
    monkeypatch.setattr("pamqp.encode.timestamp", lambda _: struct.pack(">Q", 2**63))
    nested: dict = {}
    for _ in range(60):
        nested = {"x": nested}
    for headers in (
        {"BCC": [queue.name], "CC": [queue.name]},
        {"x": "y" * 60_000},
        nested,
        {"x-delivery-count": "no number", "reason": 7, "day": datetime.fromtimestamp(0, UTC)},
    ):
        async with queue.broker_server._channel() as channel:
            await channel.default_exchange.publish(
                aio_pika.Message(b"no JSON", headers=headers), routing_key=queue.name
            )
            await asyncio.sleep(0)
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
        assert trigger._failures == 0
    dead = await queue.broker_server.list_dead_letters(queue.name)
    assert {body for body, _ in dead} == {b"no JSON"}
    assert trigger.outcomes["dead_lettered"] == len(dead)


@pytest.mark.parametrize("broker_server", ["nats"], indirect=True)
async def test_dead_letters_of_nats_drop_the_headers_of_jetstream(queue):  # noqa: F811
    """JetStream keeps its own headers in a message and would apply them again."""
    orders = {"Nats-Expected-Stream": queue.name, "Nats-Msg-Id": "1", "by": "a test"}
    async with queue.broker_server._jetstream() as jetstream:
        await jetstream.publish(queue.name, b"no JSON", headers=orders)
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
        assert trigger._failures == 0
    async with queue.broker_server._jetstream() as jetstream:
        letter = await jetstream.get_msg(f"{queue.name}-dead", 1)
    assert letter.headers["by"] == "a test"
    assert not [name for name in letter.headers if name.startswith("Nats-")]


# Broker URLs


SECRETS = (
    "pa/ss-canary",
    "pa#ss-canary",
    "pa?ss-canary",
    "pa@ss-canary",
    "12/ss-canary",
    "pa:ss canary",
    "pa[ss-canary",
)


@pytest.mark.parametrize(("kind", "scheme", "more"), [
    ("rabbitmq", "amqp", 'queue = "q"'), ("redis", "redis", 'stream = "s"'), ("redis", "unix", 'stream = "s"'),
    ("nats", "nats", 'stream = "s"\nconsumer = "c"'),
])  # fmt: skip
def test_an_unescaped_password_is_refused_without_quoting_it(kind, scheme, more, tmp_path):
    """It is checked before any client library: they would take half of it for a host or a port, and quote it."""
    for secret in SECRETS:
        path = tmp_path / "harvester.toml"
        path.write_text(
            '[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu"\napi_key = "k"\n'
            f'[triggers.t]\nkind = "{kind}"\nurl = "{scheme}://me:{secret}@broker.example/x"\n{more}\n'
        )
        with pytest.raises(UsageError) as refused:
            load(path, {}, {}).triggers["t"].options()
        text = str(refused.value)
        assert "%2F" in text
        assert not [part for part in re.split(r"\W", secret) if part in re.split(r"\W", text)]


def test_valid_broker_urls_are_accepted():
    """Escaped passwords, ports, options, IPv6, tokens, several servers, and sockets."""
    for kind, urls in {
        RabbitMQ: ["amqp://me:p%2Fw%40%23@h:5672/v%2Fh?heartbeat=10", "amqps://h", "amqp://me:p@[::1]:5672/"],
        NATS: ["nats://token@h", "nats://me:pw@a:4222,nats://me:pw@b:4222,c:4222", "tls://a,tls://b"],
        Redis: ["redis://:pw@h:6379/0", "rediss://h", "unix:///run/redis@1.sock?db=1", "unix://me:pw@/run/r.sock"],
    }.items():
        for url in urls:
            more = {"queue": "q", "stream": "s", "consumer": "c"}
            options = {name: value for name, value in more.items() if name in kind.model_fields}
            assert kind(kind=kind.__name__.lower(), url=url, **options).address() == url


@pytest.mark.parametrize(
    ("error", "url", "message"),
    [
        (ValueError("invalid literal for int(): 'pass-canary'"), "redis://h", "Redis: ValueError; check its URL"),
        (TypeError("unexpected keyword 'pass-canary'"), "redis://h", "Redis: TypeError; check its URL"),
        (OSError("no route to a"), "redis://:a@h", "Redis: OSError"),
        (OSError("no route to aa"), "redis://me:secret%2Fpw@h", "Redis: OSError: no route to aa"),
        (OSError("at secret/pw or secret%2Fpw"), "redis://me:secret%2Fpw@h", "Redis: OSError: at *** or ***"),
        (OSError("at longsecret"), "redis://h?password=longsecret", "Redis: OSError: at ***"),
        (ssl.SSLCertVerificationError(1, "expired"), "rediss://h", "Redis: SSLCertVerificationError: expired"),
    ],
)
def test_a_broker_error_contains_no_secret_and_stays_readable(error, url, message):
    """Masking a short password in every word would reveal its letters, so the text is then left out."""
    assert str(broker_error("Redis", error, url=url)).startswith(message)
    assert "canary" not in str(broker_error("Redis", error, url=url))


# Files that messages name


def s3_event(*keys):
    """An S3 event that names objects of the bucket."""
    records = [
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}} for key in keys
    ]
    return json.dumps({"Records": records}).encode()


@pytest.fixture
def store(monkeypatch):
    """A store that answers for each object with the status in its name; 200 returns a list of one pair."""

    async def answer(request):
        key = request.match_info.get("key", "")
        if not key:
            return web.Response(text="<ListBucketResult></ListBucketResult>", content_type="application/xml")
        status = int(key.removeprefix("lists/").partition(".")[0])
        text = "campaign_id,send_id\nc,of-a-file\n" if status == 200 else "<Error><Code>Odd</Code></Error>"
        headers = {"ETag": '"1"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"}
        return web.Response(status=status, text=text, headers=headers)

    app = web.Application()
    app.router.add_get(f"/{BUCKET}", answer)
    app.router.add_get(f"/{BUCKET}/{{key:.*}}", answer)
    monkeypatch.setitem(stores_module._RETRIES, "max_retries", 0)
    with served(app) as port:
        for name, value in aws(port).items():
            monkeypatch.setenv(name, value)
        yield


@one_broker
async def test_an_object_that_the_store_refuses_makes_its_message_a_dead_letter(queue, store, monkeypatch):  # noqa: F811
    """Every lasting refusal does, after a few attempts; other files of the message are read."""
    monkeypatch.setattr(importer, "MAX_ATTEMPTS", 2)
    statuses = (204, 302, 400, 403, 404, 409, 410, 412, 418, 503)
    events = {status: s3_event(f"lists/{status}.csv") for status in statuses}
    both = s3_event("lists/410.csv", "lists/200.csv")
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
    assert dead[s3_event("lists/410.csv")]
    assert set(queue.enqueued) == {("c", "s", False), ("c", "of-a-file", False)}


@one_broker
async def test_an_object_that_is_too_large_is_refused_before_it_is_copied(queue, store, monkeypatch):  # noqa: F811
    """Above the limit, or half of the free space, its message becomes a dead letter."""
    usage = shutil.disk_usage("/")
    for limit, free, message in ((10, usage.free, "at most 10 are read"), (1 << 30, 40, "half of the free space")):
        monkeypatch.setattr(stores_module, "MAX_OBJECT_BYTES", limit)
        monkeypatch.setattr(stores_module.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        await queue.broker_server.send(queue.name, s3_event("lists/200.csv"), PAIR)
        async with queue.running_trigger() as trigger:
            await wait_until(
                lambda trigger=trigger: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty
            )
        assert message in (await queue.broker_server.list_dead_letters(queue.name))[-1][1]


@one_broker
async def test_messages_that_name_files_are_dead_letters_without_a_temporary_folder(
    queue, store, monkeypatch, tmp_path  # noqa: F811
):  # fmt: skip
    """The service warns at its start, and enqueues all other messages."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    await queue.broker_server.send(queue.name, s3_event("lists/200.csv"), PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    ((_, reason),) = await queue.broker_server.list_dead_letters(queue.name)
    assert reason.startswith("there is no folder for temporary files")
    (warning,) = trigger.warnings
    assert "set TMPDIR" in warning


@one_broker
async def test_an_unexpected_error_of_a_broker_does_not_end_the_service(queue, monkeypatch):  # noqa: F811
    """It is logged without its text, and the trigger reconnects."""
    await queue.broker_server.send(queue.name, PAIR)
    parsed, raised = BoundedParser.read_response, asyncio.Event()

    async def raise_unexpected(self, *arguments, **options):
        found = await parsed(self, *arguments, **options)
        if isinstance(found, list) and not raised.is_set():
            raised.set()
            raise KeyError("canary-of-an-answer")
        return found

    monkeypatch.setattr(BoundedParser, "read_response", raise_unexpected)
    with structlog.testing.capture_logs() as logs:
        async with queue.running_trigger() as trigger:
            await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert raised.is_set()
    assert [each["error"] for each in logs if each["event"] == "bug_found"] == ["KeyError"]
    assert "canary" not in str(logs)
