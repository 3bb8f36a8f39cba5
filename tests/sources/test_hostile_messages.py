"""Tests of hostile messages on every broker. None ends the process or blocks the queue."""

import asyncio

import pytest
import structlog

from harvester.sources import importer
from harvester.sources.brokers.broker import PREFETCH_BYTES
from tests.support.queues import (
    PAIR,
    each_broker,
    encode_pairs_message,
    one_broker,
    wait_until,
)

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
async def test_harmful_messages_are_dead_letters_and_do_not_block_the_queue(queue):
    """A dead letter has the original body and a reason. Valid pairs and later messages are enqueued.

    If an invalid part is nested too deeply to be written as JSON, the whole message becomes a dead letter.
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
async def test_an_unexpected_error_affects_only_the_message_that_causes_it(queue):
    """It becomes a dead letter after a few attempts. The log has the location in the code, but nothing of the body."""
    harmful = encode_pairs_message("poison-canary")
    await queue.broker_server.send(queue.name, PAIR, harmful, encode_pairs_message("t"))
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
async def test_large_messages_are_received_a_few_at_a_time_and_dead_lettered_whole(queue):
    """The received messages take at most the memory of one large message or of one batch.

    Large entries of Redis are not fetched. Later messages are enqueued.
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


@one_broker
async def test_an_unexpected_error_of_a_broker_does_not_end_the_service(queue, monkeypatch):
    """The error is logged without its text, and the trigger reconnects."""
    await queue.broker_server.send(queue.name, PAIR)
    from harvester.sources.brokers.redis_replies import BoundedParser  # noqa: PLC0415 - its client takes a while

    read_response, raised = BoundedParser.read_response, asyncio.Event()

    async def raise_unexpected(self, *arguments, **options):
        found = await read_response(self, *arguments, **options)
        if isinstance(found, list) and not raised.is_set():
            raised.set()
            raise KeyError("canary-of-a-response")
        return found

    monkeypatch.setattr(BoundedParser, "read_response", raise_unexpected)
    with structlog.testing.capture_logs() as logs:
        async with queue.running_trigger() as trigger:
            await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert raised.is_set()
    assert [each["error"] for each in logs if each["event"] == "bug_found"] == ["KeyError"]
    assert "canary" not in str(logs)
