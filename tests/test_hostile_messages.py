"""Messages that mean harm, on every broker: each is its own end, and never the end of the process or of the queue."""

import asyncio
from datetime import UTC, datetime

import aio_pika
import pytest
import structlog
from brokers import LABS
from test_triggers import PAIR, lab, ledger, listed, scene, until  # noqa: F401 - fixtures among them

from harvester.sources import settling as settling_module
from harvester.sources.brokers.broker import PREFETCH_BYTES

each_broker = pytest.mark.parametrize("lab", list(LABS), indirect=True)

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
        assert trigger.outcomes == {"dead_lettered": len(HARMFUL) - 1, "partly": 1, "enqueued": 1}
        assert trigger._failures == 0
    dead = dict(await scene.lab.dead(scene.name))
    assert set(dead) == set(HARMFUL)
    assert all(dead.values())
    assert set(scene.arrived) == {("c", "good", False), ("c", "s", False)}


@each_broker
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
    assert why.startswith("an unexpected error, KeyError at importing.py:")
    assert settling_module.MAX_TRIES <= tries <= settling_module.MAX_TRIES + 3
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
async def test_headers_of_rabbitmq_give_no_orders(scene):  # noqa: F811
    """A dead letter is sent to no other queue that a header names, and headers of any kind or size are no obstacle."""
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
