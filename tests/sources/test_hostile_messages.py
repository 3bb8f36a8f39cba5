"""Messages that mean harm, on every broker: each is its own end, and never the end of the process or of the queue."""

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
from tests.conformance.test_brokers import PAIR, lab, ledger, listed, scene, until  # noqa: F401 - fixtures among them
from tests.support.brokers import LABS
from tests.support.servers import BUCKET, aws, served

each_broker = pytest.mark.parametrize("lab", list(LABS), indirect=True)
one_broker = pytest.mark.parametrize("lab", ["redis"], indirect=True)

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
async def test_no_message_ends_the_service_or_comes_again(scene):  # noqa: F811
    """Whatever a body holds, it is a dead letter as it came, with a reason; what is good in it and behind it is taken.

    Nested deeper than JSON is written, the bad part of a list cannot be a message of its own: the whole one is kept.
    """
    await scene.lab.send(scene.name, *HARMFUL, PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes.total() == len(HARMFUL) + 1 and trigger.empty)
        assert trigger.outcomes == {"dead_lettered": len(HARMFUL) - 1, "partly_enqueued": 1, "enqueued": 1}
        assert trigger._failures == 0
    dead = dict(await scene.lab.dead(scene.name))
    assert set(dead) == set(HARMFUL)
    assert all(dead.values())
    assert "unexpected" not in str(dead.values())
    assert set(scene.arrived) == {("c", "good", False), ("c", "s", False)}


@one_broker
async def test_a_bug_that_one_message_meets_ends_that_message_alone(scene):  # noqa: F811
    """It is tried a few times, and then a dead letter; the log names the place in the code and nothing of the body."""
    poison = listed("poison-canary")
    await scene.lab.send(scene.name, PAIR, poison, listed("t"))
    tries = 0

    async def breaks(arrivals, *, once):
        nonlocal tries
        if any(each.pair.send_id == "poison-canary" for each in arrivals):
            tries += 1
            raise KeyError("poison-canary")
        return await scene.enqueue(arrivals, once=once)

    with structlog.testing.capture_logs() as logs:
        async with scene.running(breaks) as trigger:
            await until(lambda: trigger.outcomes == {"enqueued": 2, "dead_lettered": 1} and trigger.empty)
    ((body, why),) = await scene.lab.dead(scene.name)
    assert body == poison
    assert why.startswith("an unexpected error, KeyError at importer.py:")
    assert importer.MAX_ATTEMPTS <= tries <= importer.MAX_ATTEMPTS + 3
    assert {each["error"] for each in logs if each["event"] == "bug_found"} == {"KeyError"}
    assert "canary" not in str(logs)


@pytest.mark.parametrize("lab", ["rabbitmq", "redis", "nats"], indirect=True)
async def test_large_messages_are_taken_few_at_a_time_and_buried_whole(scene):  # noqa: F811
    """Above the limit each is a dead letter, whole, and what is behind them is taken; Redis' are never fetched at all.

    No more is received at once than one large message and what a batch may weigh.
    """
    size = (1 << 20) - 1024 if scene.lab.kind == "nats" else PREFETCH_BYTES
    bodies = [b'{"version": 2, "x": "' + bytes([65 + at]) * size + b'"}' for at in range(3)]
    await scene.lab.send(scene.name, *bodies, PAIR)
    ours = scene.broker()
    await ours.open()
    received = await ours.receive()
    if scene.lab.kind == "nats":
        for each in received:
            await each.handle.nak()
    await ours.close()
    await scene.lab.let_go(scene.name)
    held = sum(len(each.body) for each in received)
    assert held <= {"rabbitmq": size + 100, "nats": PREFETCH_BYTES, "redis": 0}[scene.lab.kind]
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes == {"dead_lettered": 3, "enqueued": 1} and trigger.empty)
    dead = await scene.lab.dead(scene.name)
    assert sorted(body for body, _ in dead) == bodies
    assert await scene.lab.left(scene.name) == 0


@pytest.mark.parametrize("lab", ["redis"], indirect=True)
async def test_where_the_server_may_not_copy_a_large_entry_it_stays_and_its_id_is_buried(scene):  # noqa: F811
    """A user without the right to run scripts loses nothing: the dead letter names the entry, which is kept."""
    await scene.lab.send(scene.name, b"x" * PREFETCH_BYTES, PAIR)
    async with scene.lab.client() as redis:
        ((entry, _),) = await redis.xrange(scene.name, count=1)
        await redis.acl_setuser(
            "limited", enabled=True, passwords=["+secret-pass"], keys=["*"], commands=["+@all", "-eval"]
        )
    limited = scene.lab.url.replace("//:", "//limited:")
    async with scene.running(url=lambda: limited) as trigger:
        await until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    async with scene.lab.client() as redis:
        ((_, fields),) = await redis.xrange(f"{scene.name}.dead")
        assert (fields[b"entry"], fields[b"body"]) == (entry, b"")
        assert b"8388608 bytes" in fields[b"reason"]
        assert [name for name, _ in await redis.xrange(scene.name)] == [entry]


@pytest.mark.parametrize("lab", ["rabbitmq"], indirect=True)
async def test_headers_of_rabbitmq_give_no_orders(scene, monkeypatch):  # noqa: F811
    """A dead letter is sent to no other queue that a header names, and headers of any kind or size are no obstacle.

    Neither is what no client can read, such as a date in milliseconds where seconds belong: the year 292278994.
    """
    monkeypatch.setattr("pamqp.encode.timestamp", lambda _: struct.pack(">Q", 2**63))
    nested: dict = {}
    for _ in range(60):
        nested = {"x": nested}
    for headers in (
        {"BCC": [scene.name], "CC": [scene.name]},
        {"x": "y" * 60_000},
        nested,
        {"x-delivery-count": "no number", "reason": 7, "day": datetime.fromtimestamp(0, UTC)},
    ):
        async with scene.lab._channel() as channel:
            await channel.default_exchange.publish(
                aio_pika.Message(b"no JSON", headers=headers), routing_key=scene.name
            )
            await asyncio.sleep(0)
    await scene.lab.send(scene.name, PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
        assert trigger._failures == 0
    dead = await scene.lab.dead(scene.name)
    assert {body for body, _ in dead} == {b"no JSON"}
    assert trigger.outcomes["dead_lettered"] == len(dead)


@pytest.mark.parametrize("lab", ["nats"], indirect=True)
async def test_headers_of_nats_give_no_orders(scene):  # noqa: F811
    """JetStream keeps the headers that were orders to it; a dead letter repeats none of them."""
    orders = {"Nats-Expected-Stream": scene.name, "Nats-Msg-Id": "1", "by": "a test"}
    async with scene.lab._jetstream() as jetstream:
        await jetstream.publish(scene.name, b"no JSON", headers=orders)
    await scene.lab.send(scene.name, PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
        assert trigger._failures == 0
    async with scene.lab._jetstream() as jetstream:
        letter = await jetstream.get_msg(f"{scene.name}-dead", 1)
    assert letter.headers["by"] == "a test"
    assert not [name for name in letter.headers if name.startswith("Nats-")]


# What stands in a broker's URL


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
def test_a_password_that_is_not_escaped_is_refused_by_a_sentence_that_shows_no_part_of_it(kind, scheme, more, tmp_path):
    """It is checked before any library sees it: theirs would take half of it for a host or a port, and quote it."""
    for secret in SECRETS:
        path = tmp_path / "harvester.toml"
        path.write_text(
            '[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu"\napi_key = "k"\n'
            f'[triggers.t]\nkind = "{kind}"\nurl = "{scheme}://me:{secret}@broker.example/x"\n{more}\n'
        )
        with pytest.raises(UsageError) as refused:
            load(path, {}, {}).triggers["t"].options()
        told = str(refused.value)
        assert "%2F" in told
        assert not [part for part in re.split(r"\W", secret) if part in re.split(r"\W", told)]


def test_good_urls_of_brokers_pass():
    """Escaped passwords, ports, options, IPv6, tokens, several servers, sockets: none is refused by mistake."""
    for kind, urls in {
        RabbitMQ: ["amqp://me:p%2Fw%40%23@h:5672/v%2Fh?heartbeat=10", "amqps://h", "amqp://me:p@[::1]:5672/"],
        NATS: ["nats://token@h", "nats://me:pw@a:4222,nats://me:pw@b:4222,c:4222", "tls://a,tls://b"],
        Redis: ["redis://:pw@h:6379/0", "rediss://h", "unix:///run/redis@1.sock?db=1", "unix://me:pw@/run/r.sock"],
    }.items():
        for url in urls:
            more = {"queue": "q", "stream": "s", "consumer": "c"}
            given = {name: value for name, value in more.items() if name in kind.model_fields}
            assert kind(kind=kind.__name__.lower(), url=url, **given).address() == url


@pytest.mark.parametrize(
    ("error", "url", "said"),
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
def test_an_error_of_a_broker_shows_no_secret_and_stays_readable(error, url, said):
    """A short password is not cut out of every word, which would tell its letters: then no text is shown at all."""
    assert str(broker_error("Redis", error, url=url)).startswith(said)
    assert "canary" not in str(broker_error("Redis", error, url=url))


# What a message points to


def event_of(*keys):
    """An event of S3 that names objects of the bucket."""
    records = [
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}} for key in keys
    ]
    return json.dumps({"Records": records}).encode()


@pytest.fixture
def store(monkeypatch):
    """A store that lists, and answers for each object with the status that is its name: 200 with a list of one pair."""

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
async def test_whatever_a_store_says_of_an_object_its_message_ends_and_the_queue_goes_on(scene, store, monkeypatch):  # noqa: F811
    """Every lasting refusal is a dead letter with its reason, after a few tries; the file beside it is read."""
    monkeypatch.setattr(importer, "MAX_ATTEMPTS", 2)
    statuses = (204, 302, 400, 403, 404, 409, 410, 412, 418, 503)
    events = {status: event_of(f"lists/{status}.csv") for status in statuses}
    both = event_of("lists/410.csv", "lists/200.csv")
    await scene.lab.send(scene.name, *events.values(), both, PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes.total() == len(statuses) + 2 and trigger.empty)
        assert trigger._failures == 0
    assert trigger.outcomes == {"dead_lettered": len(statuses), "partly_enqueued": 1, "enqueued": 1}
    dead = dict(await scene.lab.dead(scene.name))
    for status, event in events.items():
        assert f"{BUCKET}/lists" in dead[event], status
    assert "status code" not in str(dead)
    assert f"could not be read in {importer.MAX_ATTEMPTS} attempts" in dead[events[503]]
    assert dead[event_of("lists/410.csv")]
    assert set(scene.arrived) == {("c", "s", False), ("c", "of-a-file", False)}


@one_broker
async def test_an_object_that_is_too_large_is_refused_before_it_is_copied(scene, store, monkeypatch):  # noqa: F811
    """Its size is looked at first: above the limit or half of what is free, its message is a dead letter."""
    usage = shutil.disk_usage("/")
    for limit, free, said in ((10, usage.free, "at most 10 are read"), (1 << 30, 40, "half of the free space")):
        monkeypatch.setattr(stores_module, "MAX_OBJECT_BYTES", limit)
        monkeypatch.setattr(stores_module.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        await scene.lab.send(scene.name, event_of("lists/200.csv"), PAIR)
        async with scene.running() as trigger:
            await until(
                lambda trigger=trigger: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty
            )
        assert said in (await scene.lab.dead(scene.name))[-1][1]


@one_broker
async def test_without_a_folder_for_temporary_files_a_message_that_names_a_file_is_refused(
    scene, store, monkeypatch, tmp_path  # noqa: F811
):  # fmt: skip
    """The service says so at its start, and takes all other messages."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    await scene.lab.send(scene.name, event_of("lists/200.csv"), PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    ((_, why),) = await scene.lab.dead(scene.name)
    assert why.startswith("there is no folder for temporary files")
    (warning,) = trigger.warnings
    assert "set TMPDIR" in warning


@one_broker
async def test_an_error_of_a_broker_that_nobody_expects_does_not_end_the_service(scene, monkeypatch):  # noqa: F811
    """It is logged as a bug to report, shown without its text, and the trigger connects again."""
    await scene.lab.send(scene.name, PAIR)
    parsed, broken = BoundedParser.read_response, asyncio.Event()

    async def breaks(self, *arguments, **options):
        found = await parsed(self, *arguments, **options)
        if isinstance(found, list) and not broken.is_set():
            broken.set()
            raise KeyError("canary-of-an-answer")
        return found

    monkeypatch.setattr(BoundedParser, "read_response", breaks)
    with structlog.testing.capture_logs() as logs:
        async with scene.running() as trigger:
            await until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert broken.is_set()
    assert [each["error"] for each in logs if each["event"] == "bug_found"] == ["KeyError"]
    assert "canary" not in str(logs)
