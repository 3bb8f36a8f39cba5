"""Triggers: what every broker must keep to, on real servers, and what becomes of messages."""

import asyncio
import contextlib
import json
import logging
import random
import re
import socket
import struct
import sys
import threading
from contextlib import asynccontextmanager
from urllib.parse import quote_plus

import pytest
import structlog
import uvloop

from harvester.clock import BrazeClock, SystemClock
from harvester.errors import BrokerError, LedgerError, UsageError
from harvester.ledger import Ledger
from harvester.ledger.books import books
from harvester.ledger.intake import enqueue
from harvester.sources.brokers import create_broker
from harvester.sources.message import MessageParser
from harvester.sources.trigger import Trigger
from harvester.storage import object_store as stores_module
from tests.support.brokers import LABS, queue_name
from tests.support.servers import BUCKET, aws, s3
from tests.support.tcp_proxy import Cutter

KINDS = list(LABS)
PATIENCE_SECONDS = 20
PAIR = b'{"version": 1, "campaign_id": "c", "send_id": "s"}'


@pytest.fixture
async def lab(request, labs, monkeypatch):
    """The broker that a test names, ready."""
    found = labs(request.param)
    await found.listens()
    if found.kind != "sqs":
        yield found
        return
    async with Cutter(found.port, found.fate) as way:
        for name, value in {**aws(way.port), "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        yield found


each_broker = pytest.mark.parametrize("lab", KINDS, indirect=True)


@pytest.fixture
async def ledger(tmp_path):
    """A ledger of our own."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=SystemClock()) as opened:
        yield opened


class Scene:
    """A queue, and triggers that put what it says into a ledger; ``arrived`` holds what they handed over."""

    def __init__(self, lab, ledger, name, prefixes):
        """Take what is running."""
        self.lab, self.ledger, self.name = lab, ledger, name
        self.arrived = []
        self.prefixes = prefixes

    async def enqueue(self, arrivals, *, once):
        """Enqueue for real."""
        self.arrived += [(each.pair.campaign_id, each.pair.send_id, once) for each in arrivals]
        return await self.ledger.do(enqueue, arrivals, now=SystemClock().wall(), once=once)

    def broker(self, **options):
        """Our side of the queue, with short waits."""
        return create_broker(self.lab.kind, **self.lab.options(self.name) | {"wait_seconds": 0.2} | options)

    def trigger(self, enqueue=None, **options):
        """A trigger on the queue, not running."""
        return Trigger(
            "sends", self.broker(**options), parser=MessageParser(("default",), self.prefixes),
            enqueue=enqueue or self.enqueue, clock=BrazeClock(SystemClock()), jitter=random.Random(1),
            wait_first_seconds=0.02, wait_max_seconds=0.02,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self, enqueue=None, **options):
        """A trigger at work, told to stop at the end."""
        trigger = self.trigger(enqueue, **options)
        async with asyncio.TaskGroup() as group:
            group.create_task(trigger.run())
            try:
                yield trigger
            finally:
                trigger.stop()
                trigger.stop()

    async def accepted(self):
        """How many pairs the ledger holds."""
        return (await self.ledger.do(books)).accepted


async def until(condition):
    """Wait for what another task or process does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def until_left(scene, count):
    """Wait until so many messages are in the queue."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await scene.lab.left(scene.name) != count:
            await asyncio.sleep(0.05)


@pytest.fixture
async def scene(lab, ledger):
    """A queue with a dead-letter place, and a ledger."""
    name = queue_name()
    await lab.make(name)
    return Scene(lab, ledger, name, [f"s3://{BUCKET}/lists"])


def listed(*ids, **more):
    """A message that lists pairs."""
    return json.dumps({"version": 1, "pairs": [{"campaign_id": "c", "send_id": each} for each in ids]} | more).encode()


# What every broker must keep to


@each_broker
async def test_messages_are_gone_once_their_pairs_are_in_the_ledger(scene):
    """All three spellings arrive; the queue is seen empty; a thousand copies of a pair are one row."""
    copies = [listed(*["s"] * 20)] * 50
    await scene.lab.send(scene.name, PAIR, listed("s1", "s2", once=True), *copies)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 52 and trigger.empty)
        assert trigger.connected
        assert trigger.problem is None
        assert trigger.warnings == []
    assert (await scene.accepted(), await scene.lab.left(scene.name)) == (3, 0)
    assert {each for each in scene.arrived if each[2]} == {("c", "s1", True), ("c", "s2", True)}
    assert not trigger.connected


@each_broker
async def test_what_was_not_acknowledged_comes_again(scene):
    """A process that dies between the ledger's commit and the acknowledgement costs a redelivery and no row."""
    await scene.lab.send(scene.name, PAIR)
    committed, never = asyncio.Event(), asyncio.Event()

    async def dies(arrivals, *, once):
        await scene.enqueue(arrivals, once=once)
        committed.set()
        await never.wait()

    dying = asyncio.create_task(scene.trigger(dies).run())
    await asyncio.wait_for(committed.wait(), PATIENCE_SECONDS)
    dying.cancel()
    await asyncio.wait({dying})
    assert dying.cancelled()
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
        assert (trigger.handler.pairs_new, trigger.handler.pairs_known) == (0, 1)
    assert (await scene.accepted(), await scene.lab.left(scene.name)) == (1, 0)


@each_broker
async def test_what_is_bad_goes_to_the_dead_letters_with_its_reason_and_the_rest_is_taken(scene):
    """Of a list, the bad pairs alone are buried, as a message that can be mended and sent again."""
    mixed = b'{"version": 1, "once": true, "pairs": [{"campaign_id": "c", "send_id": "s"}, {"campaign_id": "c"}, 7]}'
    await scene.lab.send(scene.name, b"no JSON", mixed)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes == {"dead_lettered": 1, "partly_enqueued": 1} and trigger.empty)
    assert await scene.lab.left(scene.name) == 0
    assert scene.arrived == [("c", "s", True)]
    (noise, mended) = sorted(await scene.lab.dead(scene.name))
    assert noise[0] == b"no JSON"
    assert noise[1].startswith("the message is not JSON")
    assert json.loads(mended[0]) == {"version": 1, "once": True, "pairs": [{"campaign_id": "c"}, 7]}
    assert mended[1] == "pair 2: send_id is missing; pair 3: it is not an object"


@each_broker
async def test_without_a_dead_letter_place_a_bad_message_stays_where_it_is(lab, ledger):
    """The trigger says so at its start, receives no more after the first bad message, and goes on once there is one."""
    scene = Scene(lab, ledger, queue_name(), [])
    await lab.make(scene.name, dead=False)
    await lab.send(scene.name, b"no JSON", PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger._failures > 1)
        assert trigger.problem
        if lab.kind != "redis":  # it makes its own
            assert any("dead_letter" in each or "keeps subject" in each for each in trigger.warnings)
        await until_left(scene, 2)
        await lab.bury_place(scene.name)
        await until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    assert await lab.left(scene.name) == 0
    assert {body for body, _ in await lab.dead(scene.name)} == {b"no JSON"}


@each_broker
async def test_while_the_ledger_is_away_no_message_uses_up_its_deliveries(scene):
    """It is asked again and again for the pairs in hand, and nothing is received: no delivery limit is reached."""
    await scene.lab.send(scene.name, PAIR)
    tries, failing = 0, 25 if scene.lab.kind == "rabbitmq" else 5

    async def away(arrivals, *, once):
        nonlocal tries
        tries += 1
        if tries <= failing:
            raise LedgerError("the ledger is away")
        return await scene.enqueue(arrivals, once=once)

    async with scene.running(away) as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert tries == failing + 2  # for the pairs in hand, and once more when their message came again
    assert await scene.lab.dead(scene.name) == []
    assert (await scene.accepted(), await scene.lab.left(scene.name)) == (1, 0)


@each_broker
async def test_a_broker_that_is_killed_before_the_acknowledgement_loses_nothing(scene):
    """The trigger connects again; what the broker does not know to be acknowledged comes again."""
    await scene.lab.send(scene.name, *[listed(f"s{at}") for at in range(5)])
    broken = asyncio.Event()

    async def breaks(arrivals, *, once):
        count = await scene.enqueue(arrivals, once=once)
        if not broken.is_set():
            broken.set()
            scene.lab.break_off()
        return count

    async with scene.running(breaks) as trigger:
        await asyncio.wait_for(broken.wait(), PATIENCE_SECONDS)
        await until(lambda: trigger._failures > 0)
        assert trigger.problem
        await scene.lab.mend()
        await scene.lab.send(scene.name, listed("s5"))
        await until(lambda: len(set(scene.arrived)) == 6 and trigger.empty)
    assert (await scene.accepted(), await scene.lab.left(scene.name)) == (6, 0)


@pytest.mark.parametrize("lab", ["rabbitmq", "nats", "redis"], indirect=True)
async def test_a_queue_that_is_deleted_and_made_again_is_consumed_again(scene):
    """A consumer that the server cancels is not waited on for ever."""
    async with scene.running() as trigger:
        await until(lambda: trigger.empty)
        await scene.lab.unmake(scene.name)
        await until(lambda: trigger._failures > 0 or scene.lab.kind == "redis")
        await scene.lab.make(scene.name)
        await scene.lab.send(scene.name, PAIR)
        await until(lambda: trigger.outcomes["enqueued"] == 1)


@pytest.mark.parametrize("lab", ["sqs", "nats", "redis"], indirect=True)
async def test_what_takes_longer_than_its_lease_stays_ours(scene):
    """A large file takes its time, and meanwhile no other replica gets the message."""
    await scene.lab.send(scene.name, PAIR)
    seconds = 2  # longer than elsewhere: a busy machine may be late to lengthen it
    options = await scene.lab.set_lease(scene.name, seconds)
    other, begun = scene.broker(wait_seconds=seconds + 1, **options), asyncio.Event()
    seen = []

    async def slow(arrivals, *, once):
        begun.set()
        seen.extend(await other.receive())
        return await scene.enqueue(arrivals, once=once)

    await other.open()
    async with scene.running(slow, **options) as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 1)
    await other.close()
    assert seen == []
    assert await scene.lab.left(scene.name) == 0


@each_broker
async def test_an_idle_trigger_stops_at_once_and_lets_go(scene):
    """Also in the middle of a long wait; then nothing takes messages away from others."""
    async with scene.running(wait_seconds=20) as trigger:
        await until(lambda: trigger.connected)
    await scene.lab.send(scene.name, PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 1)


@pytest.mark.parametrize("lab", ["rabbitmq", "nats", "redis"], indirect=True)
async def test_no_word_of_a_broker_s_url_is_told(scene, caplog, capfd):
    """Neither of one with a wrong password nor of one where nobody listens."""
    caplog.set_level(logging.DEBUG)
    wrong = re.sub(r"//([^:]*):[^@]+@", r"//\1:p%40ss-canary@", scene.lab.url)
    for url in (wrong, re.sub(r":\d+$", ":1", wrong)):
        ours = scene.broker(url=lambda url=url: url)
        with pytest.raises(BrokerError) as refused:
            await ours.open()
        await ours.close()
        told = f"{refused.value!r} {refused.value} {caplog.text} {capfd.readouterr()}"
        assert "p%40ss-canary" not in told
        assert "p@ss-canary" not in told
        assert scene.name in str(refused.value)


# What each broker's own settings say


@pytest.mark.parametrize("lab", ["sqs", "nats", "redis"], indirect=True)
async def test_a_queue_that_forgets_is_warned_of(lab, labs):
    """Messages should be kept for as long as Braze keeps its data; AMQP does not tell."""
    name = queue_name()
    await lab.make(name)
    await lab.forget(name)
    ours = create_broker(lab.kind, **lab.options(name))
    warnings = await ours.open()
    await ours.close()
    told = {
        "sqs": ["keeps messages for 4 days"],
        "nats": ["keeps messages for 4 days", "held in memory", "drops a message after 3 deliveries"],
        "redis": ["expires", "other groups read"],
    }[lab.kind]
    assert len(warnings) == len(told), warnings
    for part in told:
        assert any(part in each for each in warnings), part


@pytest.mark.parametrize("lab", ["redis"], indirect=True)
async def test_an_entry_without_a_body_is_told_as_such(scene):
    """The dead letter and the log name the field that is missing, and the log the trigger."""
    async with scene.lab.client() as redis:
        await redis.xadd(scene.name, {"data": PAIR, "by": "a test"})
    with structlog.testing.capture_logs() as logs:
        async with scene.running() as trigger:
            await until(lambda: trigger.outcomes["dead_lettered"] == 1)
    [(_, why)] = await scene.lab.dead(scene.name)
    assert "no field named body" in why
    [told] = [each for each in logs if each["event"] == "message_dead_lettered"]
    assert (told["trigger"], told["reason"]) == ("sends", why)


@pytest.mark.parametrize("lab", ["redis"], indirect=True)
async def test_entries_that_others_read_too_are_kept(scene):
    """Only a stream that is ours alone is emptied."""
    async with scene.lab.client() as redis:
        await redis.xgroup_create(scene.name, "others", mkstream=True)
    await scene.lab.send(scene.name, PAIR)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 1)
    assert await scene.lab.left(scene.name) == 1


@pytest.mark.parametrize("lab", ["sqs"], indirect=True)
async def test_deletions_that_fail_in_a_batch_are_not_taken_for_success(scene):
    """A receipt that is stale fails alone: the others are deleted, and the message comes again."""
    await scene.lab.send(scene.name, PAIR, listed("s1"))
    ours = scene.broker()
    await ours.open()
    first = list(await ours.receive())
    while len(first) < 2:
        first += await ours.receive()
    stale = type(first[0])(first[0].body, 1, "no receipt")
    await ours.acknowledge([stale, first[1]])
    await ours.close()
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert await scene.lab.left(scene.name) == 0


@pytest.mark.parametrize("lab", ["redis"], indirect=True)
async def test_a_message_that_kills_whoever_takes_it_is_buried_in_the_end(scene):
    """After 15 deliveries that nobody settled, before a broker's own limit drops it without a reason."""
    await scene.lab.send(scene.name, PAIR)
    async with scene.lab.client() as redis:
        await redis.xgroup_create(scene.name, "harvester", id="0")
        await redis.xreadgroup("harvester", "dead", {scene.name: ">"})
        for _ in range(14):
            await redis.xautoclaim(scene.name, "harvester", "dead", 0)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes["dead_lettered"] == 1 and trigger.empty)
    ((body, told),) = await scene.lab.dead(scene.name)
    assert (body, told) == (PAIR, "the message was delivered 16 times and never acknowledged")


@pytest.fixture
def lists(stores, monkeypatch):
    """A bucket that messages may point into; gives what puts a file there and the event that S3 sends of it."""
    bucket = stores("moto")
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)

    def put(key, data):
        s3(bucket.port).put_object(Bucket=BUCKET, Key=key, Body=data)
        record = {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": BUCKET}, "object": {"key": quote_plus(key)}},
        }
        return json.dumps({"Records": [record]}).encode()

    return put


@pytest.mark.parametrize("lab", ["redis"], indirect=True)
async def test_a_file_dropped_into_the_bucket_is_a_trigger(scene, lists):
    """Its pairs are enqueued, page by page; what is wrong with it is told among the dead letters, with the message."""
    good = "campaign_id,send_id\n" + "".join(f"c,s{at}\n" for at in range(4500))
    whole = lists("lists/one day/all of it.csv", good)
    partly = lists("lists/partly.csv", "campaign_id,send_id\nc,t\nc\n")
    absent = lists("lists/absent.csv", "").replace(b"absent", b"gone")
    broken = lists("lists/broken.csv", "no header")
    await scene.lab.send(scene.name, whole, partly, absent, broken)
    async with scene.running() as trigger:
        await until(lambda: trigger.outcomes.total() == 4 and trigger.empty)
        assert trigger.outcomes == {"enqueued": 1, "partly_enqueued": 1, "dead_lettered": 2}
    assert await scene.accepted() == 4501
    told = dict(await scene.lab.dead(scene.name))
    assert "1 of 2 lines contain no pair: line 3" in told[partly]
    assert "no such object" in told[absent]
    assert "must contain the columns" in told[broken]


@pytest.mark.parametrize("lab", ["redis"], indirect=True)
async def test_while_the_store_is_away_a_pointer_waits(scene, lists, stores, monkeypatch):
    """It is not the message's fault, so it is not buried."""
    message = lists("lists/later.csv", "campaign_id,send_id\nc,s\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setitem(stores_module._RETRIES, "max_retries", 0)
    await scene.lab.send(scene.name, message)
    async with scene.running() as trigger:
        await until(lambda: trigger._failures > 1)
        assert "cannot be reached" in trigger.problem
        for name, value in stores("moto").env.items():
            monkeypatch.setenv(name, value)
        await until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert await scene.lab.dead(scene.name) == []
    assert await scene.accepted() == 1


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    """Brokers' clients are extras."""
    monkeypatch.delitem(sys.modules, "harvester.sources.brokers.redis", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"] + ["redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=re.escape("pip install -c locks/constraints.txt -e '.[redis]'")):
        create_broker("redis", url=lambda: "redis://x", stream="s", group="g", dead_letter=None)


def test_a_redis_that_cuts_every_connection_is_away_and_nothing_worse():
    """Wherever in the first exchange a connection is cut, the trigger is told; uvloop has a word of its own for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cut_all():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        threading.Thread(target=cut_all, daemon=True).start()
        url = f"redis://:secret-pass@127.0.0.1:{server.getsockname()[1]}"

        async def open_often():
            for _ in range(100):
                queue = create_broker("redis", url=lambda: url, stream="s", group="g", dead_letter=None)
                with pytest.raises(BrokerError):
                    await queue.open()
                await queue.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(open_often())
        server.shutdown(socket.SHUT_RDWR)
