"""Tests of behaviour that only one broker has."""

import asyncio
import contextlib
import re
import socket
import struct
import sys
import threading
from datetime import UTC, datetime

import pytest
import structlog
import uvloop

from harvester.errors import BrokerError, UsageError
from harvester.sources.brokers import create_broker
from harvester.sources.brokers.broker import PREFETCH_BYTES
from tests.support.brokers import create_queue_name
from tests.support.queues import (
    PAIR,
    encode_pairs_message,
    wait_until,
)


@pytest.mark.parametrize("broker_server", ["sqs", "nats", "redis"], indirect=True)
async def test_a_queue_that_drops_messages_too_early_causes_a_warning(broker_server, broker_servers):
    """A queue should keep messages as long as Braze keeps analytics. AMQP does not report the retention."""
    name = create_queue_name()
    await broker_server.create_queue(name)
    await broker_server.shorten_retention(name)
    broker = create_broker(broker_server.kind, **broker_server.options(name))
    warnings = await broker.open()
    await broker.close()
    expected = {
        "sqs": ["keeps messages for 4 days"],
        "nats": ["keeps messages for 4 days", "stored in memory", "drops a message after 3 deliveries"],
        "redis": ["will expire", "other groups read"],
    }[broker_server.kind]
    assert len(warnings) == len(expected), warnings
    for part in expected:
        assert any(part in each for each in warnings), part


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_an_entry_without_a_body_becomes_a_dead_letter(queue):
    """The dead letter and the log name the missing field. The log also names the trigger."""
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
async def test_a_failed_deletion_affects_only_its_message(queue):
    """With one invalid receipt, the other messages are deleted, and this message is delivered again."""
    await queue.broker_server.send(queue.name, PAIR, encode_pairs_message("s1"))
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
    """After 15 deliveries, before the limit of the broker could drop it without a reason, it is dead-lettered."""
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


def test_a_missing_client_library_is_a_usage_error_that_names_its_extra(monkeypatch):
    """The client library of each broker is optional. The error contains the command that installs it."""
    monkeypatch.delitem(sys.modules, "harvester.sources.brokers.redis", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"] + ["redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=re.escape("pip install -c locks/constraints.txt -e '.[redis]'")):
        create_broker("redis", url=lambda: "redis://x", stream="s", group="g", dead_letter=None)


def test_a_redis_that_cuts_every_connection_raises_broker_errors():
    """The connection may be cut at any moment. uvloop raises its own error for this, which must be translated."""
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


@pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
async def test_a_large_entry_stays_in_redis_if_scripts_are_not_allowed(queue):
    """The dead letter contains the id of the entry, so no data is lost."""
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
async def test_headers_of_a_message_do_not_prevent_its_dead_letter(queue, monkeypatch):
    """Headers may have any type or size, and may route the message to more queues.

    They may even be unreadable, for example a date in milliseconds instead of seconds (the year 292278994).
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
        await queue.broker_server.send_with_headers(queue.name, b"no JSON", headers)
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
        assert trigger._failures == 0
    dead = await queue.broker_server.list_dead_letters(queue.name)
    assert {body for body, _ in dead} == {b"no JSON"}
    assert trigger.outcomes["dead_lettered"] == len(dead)


@pytest.mark.parametrize("broker_server", ["nats"], indirect=True)
async def test_dead_letters_of_nats_drop_the_headers_of_jetstream(queue):
    """JetStream's own headers would also affect the dead letter."""
    headers = {"Nats-Expected-Stream": queue.name, "Nats-Msg-Id": "1", "by": "a test"}
    async with queue.broker_server._jetstream() as jetstream:
        await jetstream.publish(queue.name, b"no JSON", headers=headers)
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
        assert trigger._failures == 0
    async with queue.broker_server._jetstream() as jetstream:
        letter = await jetstream.get_msg(f"{queue.name}-dead", 1)
    assert letter.headers["by"] == "a test"
    assert not [name for name in letter.headers if name.startswith("Nats-")]
