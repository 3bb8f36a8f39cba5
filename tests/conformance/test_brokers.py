"""Tests that every broker must pass, on real servers, and tests of triggers."""

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
from tests.support.brokers import BROKER_SERVERS, queue_name
from tests.support.servers import BUCKET, aws, s3
from tests.support.tcp_proxy import Cutter

KINDS = list(BROKER_SERVERS)
TIMEOUT_SECONDS = 20
PAIR = b'{"version": 1, "campaign_id": "c", "send_id": "s"}'


@pytest.fixture
async def broker_server(request, broker_servers, monkeypatch):
    """The broker server that a test names, ready for connections."""
    server = broker_servers(request.param)
    await server.wait_until_ready()
    if server.kind != "sqs":
        yield server
        return
    async with Cutter(server.port, server.fate) as proxy:
        for name, value in {**aws(proxy.port), "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        yield server


each_broker = pytest.mark.parametrize("broker_server", KINDS, indirect=True)


@pytest.fixture
async def ledger(tmp_path):
    """A new ledger."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=SystemClock()) as opened:
        yield opened


class QueueSetup:
    """A queue and a ledger; ``enqueued`` lists the pairs that triggers have enqueued."""

    def __init__(self, broker_server, ledger, name, prefixes):
        """Take what is running."""
        self.broker_server, self.ledger, self.name = broker_server, ledger, name
        self.enqueued = []
        self.prefixes = prefixes

    async def enqueue(self, arrivals, *, once):
        """Enqueue into the ledger."""
        self.enqueued += [(each.pair.campaign_id, each.pair.send_id, once) for each in arrivals]
        return await self.ledger.do(enqueue, arrivals, now=SystemClock().wall(), once=once)

    def create_broker(self, **options):
        """A broker for the queue, with short waits."""
        return create_broker(
            self.broker_server.kind, **self.broker_server.options(self.name) | {"wait_seconds": 0.2} | options
        )

    def create_trigger(self, enqueue=None, **options):
        """A trigger for the queue, not running."""
        return Trigger(
            "sends", self.create_broker(**options), parser=MessageParser(("default",), self.prefixes),
            enqueue=enqueue or self.enqueue, clock=BrazeClock(SystemClock()), jitter=random.Random(1),
            wait_first_seconds=0.02, wait_max_seconds=0.02,
        )  # fmt: skip

    @asynccontextmanager
    async def running_trigger(self, enqueue=None, **options):
        """A running trigger, stopped at the end."""
        trigger = self.create_trigger(enqueue, **options)
        async with asyncio.TaskGroup() as group:
            group.create_task(trigger.run())
            try:
                yield trigger
            finally:
                trigger.stop()
                trigger.stop()

    async def count_accepted(self):
        """The number of pairs in the ledger."""
        return (await self.ledger.do(books)).accepted


async def wait_until(condition):
    """Wait for another task or process."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def wait_for_message_count(queue, count):
    """Wait until the queue has so many messages."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while await queue.broker_server.count_messages(queue.name) != count:
            await asyncio.sleep(0.05)


@pytest.fixture
async def queue(broker_server, ledger):
    """A queue with a dead-letter queue, and a ledger."""
    name = queue_name()
    await broker_server.create_queue(name)
    return QueueSetup(broker_server, ledger, name, [f"s3://{BUCKET}/lists"])


def pairs_message(*ids, **more):
    """A message with a list of pairs."""
    return json.dumps({"version": 1, "pairs": [{"campaign_id": "c", "send_id": each} for each in ids]} | more).encode()


# Tests that every broker must pass


@each_broker
async def test_messages_are_acknowledged_once_their_pairs_are_in_the_ledger(queue):
    """All three forms are accepted, the trigger sees the empty queue, and a thousand copies of a pair are one row."""
    copies = [pairs_message(*["s"] * 20)] * 50
    await queue.broker_server.send(queue.name, PAIR, pairs_message("s1", "s2", once=True), *copies)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 52 and trigger.empty)
        assert trigger.connected
        assert trigger.problem is None
        assert trigger.warnings == []
    assert (await queue.count_accepted(), await queue.broker_server.count_messages(queue.name)) == (3, 0)
    assert {each for each in queue.enqueued if each[2]} == {("c", "s1", True), ("c", "s2", True)}
    assert not trigger.connected


@each_broker
async def test_an_unacknowledged_message_is_delivered_again(queue):
    """A process that dies between commit and acknowledgement causes a redelivery and no second row."""
    await queue.broker_server.send(queue.name, PAIR)
    committed, never = asyncio.Event(), asyncio.Event()

    async def never_return(arrivals, *, once):
        await queue.enqueue(arrivals, once=once)
        committed.set()
        await never.wait()

    running = asyncio.create_task(queue.create_trigger(never_return).run())
    await asyncio.wait_for(committed.wait(), TIMEOUT_SECONDS)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
        assert (trigger.handler.pairs_new, trigger.handler.pairs_known) == (0, 1)
    assert (await queue.count_accepted(), await queue.broker_server.count_messages(queue.name)) == (1, 0)


@each_broker
async def test_invalid_pairs_are_dead_lettered_with_reasons_and_the_others_enqueued(queue):
    """Only the invalid pairs of a list are dead-lettered, as a message that can be corrected and sent again."""
    mixed = b'{"version": 1, "once": true, "pairs": [{"campaign_id": "c", "send_id": "s"}, {"campaign_id": "c"}, 7]}'
    await queue.broker_server.send(queue.name, b"no JSON", mixed)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "partly_enqueued": 1} and trigger.empty)
    assert await queue.broker_server.count_messages(queue.name) == 0
    assert queue.enqueued == [("c", "s", True)]
    (not_json, corrected) = sorted(await queue.broker_server.list_dead_letters(queue.name))
    assert not_json[0] == b"no JSON"
    assert not_json[1].startswith("the message is not JSON")
    assert json.loads(corrected[0]) == {"version": 1, "once": True, "pairs": [{"campaign_id": "c"}, 7]}
    assert corrected[1] == "pair 2: send_id is missing; pair 3: it is not an object"


@each_broker
async def test_an_invalid_message_stays_in_the_queue_while_there_is_no_dead_letter_queue(broker_server, ledger):
    """The trigger warns at its start, stops at the first invalid message, and continues once the queue exists."""
    queue = QueueSetup(broker_server, ledger, queue_name(), [])
    await broker_server.create_queue(queue.name, dead_letters=False)
    await broker_server.send(queue.name, b"no JSON", PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger._failures > 1)
        assert trigger.problem
        if broker_server.kind != "redis":  # it makes its own
            assert any("dead_letter" in each or "keeps subject" in each for each in trigger.warnings)
        await wait_for_message_count(queue, 2)
        await broker_server.create_dead_letter_queue(queue.name)
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    assert await broker_server.count_messages(queue.name) == 0
    assert {body for body, _ in await broker_server.list_dead_letters(queue.name)} == {b"no JSON"}


@each_broker
async def test_an_unavailable_ledger_does_not_use_up_deliveries(queue):
    """The current messages are tried repeatedly, and nothing is received, so no delivery limit is reached."""
    await queue.broker_server.send(queue.name, PAIR)
    tries, failing = 0, 25 if queue.broker_server.kind == "rabbitmq" else 5

    async def unavailable_at_first(arrivals, *, once):
        nonlocal tries
        tries += 1
        if tries <= failing:
            raise LedgerError("the ledger is unavailable")
        return await queue.enqueue(arrivals, once=once)

    async with queue.running_trigger(unavailable_at_first) as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert tries == failing + 2  # for the pairs in hand, and once more when their message came again
    assert await queue.broker_server.list_dead_letters(queue.name) == []
    assert (await queue.count_accepted(), await queue.broker_server.count_messages(queue.name)) == (1, 0)


@each_broker
async def test_a_broker_that_is_killed_before_the_acknowledgement_loses_nothing(queue):
    """The trigger reconnects, and the broker delivers unacknowledged messages again."""
    await queue.broker_server.send(queue.name, *[pairs_message(f"s{at}") for at in range(5)])
    interrupted = asyncio.Event()

    async def interrupt_once(arrivals, *, once):
        count = await queue.enqueue(arrivals, once=once)
        if not interrupted.is_set():
            interrupted.set()
            queue.broker_server.interrupt()
        return count

    async with queue.running_trigger(interrupt_once) as trigger:
        await asyncio.wait_for(interrupted.wait(), TIMEOUT_SECONDS)
        await wait_until(lambda: trigger._failures > 0)
        assert trigger.problem
        await queue.broker_server.restore()
        await queue.broker_server.send(queue.name, pairs_message("s5"))
        await wait_until(lambda: len(set(queue.enqueued)) == 6 and trigger.empty)
    assert (await queue.count_accepted(), await queue.broker_server.count_messages(queue.name)) == (6, 0)


@pytest.mark.parametrize("broker_server", ["rabbitmq", "nats", "redis"], indirect=True)
async def test_a_queue_that_is_deleted_and_created_again_is_consumed_again(queue):
    """The trigger does not wait for ever for a consumer that the server cancelled."""
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.empty)
        await queue.broker_server.delete_queue(queue.name)
        await wait_until(lambda: trigger._failures > 0 or queue.broker_server.kind == "redis")
        await queue.broker_server.create_queue(queue.name)
        await queue.broker_server.send(queue.name, PAIR)
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1)


@pytest.mark.parametrize("broker_server", ["sqs", "nats", "redis"], indirect=True)
async def test_the_lease_is_renewed_while_a_message_is_handled(queue):
    """While a large file is imported, no other replica receives its message."""
    await queue.broker_server.send(queue.name, PAIR)
    seconds = 2  # longer than elsewhere: a busy machine may be late to lengthen it
    options = await queue.broker_server.set_lease(queue.name, seconds)
    other, enqueue_started = queue.create_broker(wait_seconds=seconds + 1, **options), asyncio.Event()
    seen = []

    async def slow(arrivals, *, once):
        enqueue_started.set()
        seen.extend(await other.receive())
        return await queue.enqueue(arrivals, once=once)

    await other.open()
    async with queue.running_trigger(slow, **options) as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1)
    await other.close()
    assert seen == []
    assert await queue.broker_server.count_messages(queue.name) == 0


@each_broker
async def test_an_idle_trigger_stops_at_once_and_releases_the_queue(queue):
    """Even during a long wait; afterwards it takes no messages away from others."""
    async with queue.running_trigger(wait_seconds=20) as trigger:
        await wait_until(lambda: trigger.connected)
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1)


@pytest.mark.parametrize("broker_server", ["rabbitmq", "nats", "redis"], indirect=True)
async def test_an_error_does_not_contain_the_credentials_of_the_url(queue, caplog, capfd):
    """Neither with a wrong password nor with no server at the address."""
    caplog.set_level(logging.DEBUG)
    wrong = re.sub(r"//([^:]*):[^@]+@", r"//\1:p%40ss-canary@", queue.broker_server.url)
    for url in (wrong, re.sub(r":\d+$", ":1", wrong)):
        broker = queue.create_broker(url=lambda url=url: url)
        with pytest.raises(BrokerError) as refused:
            await broker.open()
        await broker.close()
        output = f"{refused.value!r} {refused.value} {caplog.text} {capfd.readouterr()}"
        assert "p%40ss-canary" not in output
        assert "p@ss-canary" not in output
        assert queue.name in str(refused.value)


# Tests of single brokers


@pytest.mark.parametrize("broker_server", ["sqs", "nats", "redis"], indirect=True)
async def test_a_queue_that_drops_messages_too_early_has_a_warning(broker_server, broker_servers):
    """Messages should be kept for as long as Braze keeps its data; AMQP does not report it."""
    name = queue_name()
    await broker_server.create_queue(name)
    await broker_server.shorten_retention(name)
    broker = create_broker(broker_server.kind, **broker_server.options(name))
    warnings = await broker.open()
    await broker.close()
    expected = {
        "sqs": ["keeps messages for 4 days"],
        "nats": ["keeps messages for 4 days", "held in memory", "drops a message after 3 deliveries"],
        "redis": ["expires", "other groups read"],
    }[broker_server.kind]
    assert len(warnings) == len(expected), warnings
    for part in expected:
        assert any(part in each for each in warnings), part


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_an_entry_without_a_body_is_a_dead_letter_that_says_so(queue):
    """The dead letter and the log name the missing field, and the log names the trigger."""
    async with queue.broker_server.client() as redis:
        await redis.xadd(queue.name, {"data": PAIR, "by": "a test"})
    with structlog.testing.capture_logs() as logs:
        async with queue.running_trigger() as trigger:
            await wait_until(lambda: trigger.outcomes["dead_lettered"] == 1)
    [(_, reason)] = await queue.broker_server.list_dead_letters(queue.name)
    assert "no field named body" in reason
    [entry] = [each for each in logs if each["event"] == "message_dead_lettered"]
    assert (entry["trigger"], entry["reason"]) == ("sends", reason)


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_entries_that_other_groups_read_are_kept(queue):
    """Acknowledged entries are deleted only if no other group reads the stream."""
    async with queue.broker_server.client() as redis:
        await redis.xgroup_create(queue.name, "others", mkstream=True)
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1)
    assert await queue.broker_server.count_messages(queue.name) == 1


@pytest.mark.parametrize("broker_server", ["sqs"], indirect=True)
async def test_a_failed_deletion_in_a_batch_is_noticed(queue):
    """A stale receipt fails alone: the others are deleted, and its message is delivered again."""
    await queue.broker_server.send(queue.name, PAIR, pairs_message("s1"))
    broker = queue.create_broker()
    await broker.open()
    first = list(await broker.receive())
    while len(first) < 2:
        first += await broker.receive()
    stale = type(first[0])(first[0].body, 1, "no receipt")
    await broker.acknowledge([stale, first[1]])
    await broker.close()
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert await queue.broker_server.count_messages(queue.name) == 0


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_a_message_that_is_never_acknowledged_becomes_a_dead_letter(queue):
    """After 15 deliveries, before a broker's own limit drops it without a reason."""
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.broker_server.client() as redis:
        await redis.xgroup_create(queue.name, "harvester", id="0")
        await redis.xreadgroup("harvester", "dead", {queue.name: ">"})
        for _ in range(14):
            await redis.xautoclaim(queue.name, "harvester", "dead", 0)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["dead_lettered"] == 1 and trigger.empty)
    ((body, reason),) = await queue.broker_server.list_dead_letters(queue.name)
    assert (body, reason) == (PAIR, "the message was delivered 16 times and never acknowledged")


@pytest.fixture
def put_list(stores, monkeypatch):
    """A bucket that messages may name; returns a function that writes a file and returns the event that S3 sends."""
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


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_a_file_that_is_put_into_the_bucket_is_imported(queue, put_list):
    """Its pairs are enqueued page by page, and the dead letter says what is wrong with a file."""
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
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
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


def test_a_missing_client_library_is_a_usage_error_that_names_its_extra(monkeypatch):
    """Client libraries of brokers are optional dependencies."""
    monkeypatch.delitem(sys.modules, "harvester.sources.brokers.redis", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"] + ["redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=re.escape("pip install -c locks/constraints.txt -e '.[redis]'")):
        create_broker("redis", url=lambda: "redis://x", stream="s", group="g", dead_letter=None)


def test_a_redis_that_cuts_every_connection_raises_broker_errors():
    """Wherever the connection is cut; uvloop raises an error of its own for it."""
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
                broker = create_broker("redis", url=lambda: url, stream="s", group="g", dead_letter=None)
                with pytest.raises(BrokerError):
                    await broker.open()
                await broker.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(open_often())
        server.shutdown(socket.SHUT_RDWR)
