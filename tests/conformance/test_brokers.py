"""Tests that every broker must pass, on real servers."""

import asyncio
import json
import logging
import re

import pytest

from harvester.errors import BrokerError, LedgerError
from tests.support.brokers import create_queue_name
from tests.support.queues import (
    PAIR,
    TIMEOUT_SECONDS,
    QueueSetup,
    each_broker,
    encode_pairs_message,
    wait_for_message_count,
    wait_until,
)


@each_broker
async def test_messages_are_acknowledged_once_their_pairs_are_in_the_ledger(queue):
    """A thousand copies of a pair are one row in the ledger. Afterwards the trigger reports an empty queue."""
    copies = [encode_pairs_message(*["s"] * 20)] * 50
    await queue.broker_server.send(queue.name, PAIR, encode_pairs_message("s1", "s2", once=True), *copies)
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
    """If a process dies between the commit and the acknowledgement, the pair is still stored once."""
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
    """The invalid pairs of a list become a separate message, which a user can correct and send again."""
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
    """The trigger warns, stops at the first invalid message, and continues once the dead-letter queue exists."""
    queue = QueueSetup(broker_server, ledger, create_queue_name(), [])
    await broker_server.create_queue(queue.name, dead_letters=False)
    await broker_server.send(queue.name, b"no JSON", PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger._failures > 1)
        assert trigger.problem
        if broker_server.kind != "redis":  # Redis creates the stream itself
            assert any("dead_letter" in each or "stores subject" in each for each in trigger.warnings)
        await wait_for_message_count(queue, 2)
        await broker_server.create_dead_letter_queue(queue.name)
        await wait_until(lambda: trigger.outcomes == {"dead_lettered": 1, "enqueued": 1} and trigger.empty)
    assert await broker_server.count_messages(queue.name) == 0
    assert {body for body, _ in await broker_server.list_dead_letters(queue.name)} == {b"no JSON"}


@each_broker
async def test_an_unavailable_ledger_does_not_use_up_deliveries(queue):
    """The trigger retries the messages that it has and receives no others, so no delivery limit is reached."""
    await queue.broker_server.send(queue.name, PAIR)
    attempts, failures = 0, 25 if queue.broker_server.kind == "rabbitmq" else 5

    async def unavailable_at_first(arrivals, *, once):
        nonlocal attempts
        attempts += 1
        if attempts <= failures:
            raise LedgerError("the ledger is unavailable")
        return await queue.enqueue(arrivals, once=once)

    async with queue.running_trigger(unavailable_at_first) as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1 and trigger.empty)
    assert attempts == failures + 2  # one for the received message, and one for its redelivery
    assert await queue.broker_server.list_dead_letters(queue.name) == []
    assert (await queue.count_accepted(), await queue.broker_server.count_messages(queue.name)) == (1, 0)


@each_broker
async def test_a_broker_that_is_killed_before_the_acknowledgement_loses_nothing(queue):
    """The trigger reconnects, and the broker delivers unacknowledged messages again."""
    await queue.broker_server.send(queue.name, *[encode_pairs_message(f"s{at}") for at in range(5)])
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
        await queue.broker_server.send(queue.name, encode_pairs_message("s5"))
        await wait_until(lambda: len(set(queue.enqueued)) == 6 and trigger.empty)
    assert (await queue.count_accepted(), await queue.broker_server.count_messages(queue.name)) == (6, 0)


@pytest.mark.parametrize("broker_server", ["rabbitmq", "nats", "redis"], indirect=True)
async def test_a_queue_that_is_deleted_and_created_again_is_consumed_again(queue):
    """When the server cancels the consumer, the trigger connects again."""
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.empty)
        await queue.broker_server.delete_queue(queue.name)
        await wait_until(lambda: trigger._failures > 0 or queue.broker_server.kind == "redis")
        await queue.broker_server.create_queue(queue.name)
        await queue.broker_server.send(queue.name, PAIR)
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1)


@pytest.mark.parametrize("broker_server", [pytest.param("sqs", marks=pytest.mark.long), "nats", "redis"], indirect=True)
async def test_the_lease_is_renewed_while_a_message_is_handled(queue):
    """While a large file is imported, no other replica receives its message."""
    await queue.broker_server.send(queue.name, PAIR)
    seconds = 2  # longer than in other tests, because a busy machine may renew it late
    options = await queue.broker_server.set_lease(queue.name, seconds)
    other, enqueue_started = queue.create_broker(wait_seconds=seconds + 1, **options), asyncio.Event()
    received = []

    async def slow(arrivals, *, once):
        enqueue_started.set()
        received.extend(await other.receive())
        return await queue.enqueue(arrivals, once=once)

    await other.open()
    async with queue.running_trigger(slow, **options) as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1)
    await other.close()
    assert received == []
    assert await queue.broker_server.count_messages(queue.name) == 0


@each_broker
async def test_an_idle_trigger_stops_at_once_and_releases_the_queue(queue):
    """A trigger that waits for messages stops at once, and receives no message afterwards."""
    async with queue.running_trigger(wait_seconds=20) as trigger:
        await wait_until(lambda: trigger.connected)
    await queue.broker_server.send(queue.name, PAIR)
    async with queue.running_trigger() as trigger:
        await wait_until(lambda: trigger.outcomes["enqueued"] == 1)


@pytest.mark.parametrize("broker_server", ["rabbitmq", "nats", "redis"], indirect=True)
async def test_an_error_does_not_contain_the_credentials_of_the_url(queue, caplog, capfd):
    """The error shows no credentials if the password is wrong, or if no server is at the address."""
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
