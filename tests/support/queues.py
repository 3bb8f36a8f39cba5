"""Queues on broker servers, and triggers that consume them."""

import asyncio
import json
import random
from contextlib import asynccontextmanager

import pytest

from harvester.clock import BrazeClock, SystemClock
from harvester.ledger import Ledger
from harvester.sources.brokers import create_broker
from harvester.sources.messages.message import MessageParser
from harvester.sources.messages.trigger import Trigger
from tests.support.brokers import BROKER_SERVERS, create_queue_name
from tests.support.object_stores import BUCKET, aws
from tests.support.tcp_proxy import TcpProxy

KINDS = list(BROKER_SERVERS)
TIMEOUT_SECONDS = 20
PAIR = b'{"version": 1, "campaign_id": "c", "send_id": "s"}'


@pytest.fixture
async def broker_server(request, broker_servers, monkeypatch):
    """The broker server of the kind that the test names, ready for connections."""
    server = broker_servers(request.param)
    await server.wait_until_ready()
    if server.kind != "sqs":
        yield server
        return
    async with TcpProxy(server.port, server.choose_fate) as proxy:
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
        """Use a running broker server and an open ledger."""
        self.broker_server, self.ledger, self.name = broker_server, ledger, name
        self.enqueued = []
        self.prefixes = prefixes

    async def enqueue(self, arrivals, *, once):
        """Record the pairs in ``enqueued``, and enqueue them into the ledger."""
        self.enqueued += [(each.pair.campaign_id, each.pair.send_id, once) for each in arrivals]
        return await self.ledger.intake.enqueue(arrivals, once=once)

    def create_broker(self, **options):
        """Return a broker for the queue, with short waits."""
        return create_broker(
            self.broker_server.kind, **self.broker_server.options(self.name) | {"wait_seconds": 0.2} | options
        )

    def create_trigger(self, enqueue=None, **options):
        """Return a trigger for the queue that is not running."""
        return Trigger(
            "sends",
            self.create_broker(**options),
            parser=MessageParser(("default",), self.prefixes),
            enqueue=enqueue or self.enqueue,
            clock=BrazeClock(SystemClock()),
            jitter=random.Random(1),
            wait_first_seconds=0.02,
            wait_max_seconds=0.02,
        )

    @asynccontextmanager
    async def running_trigger(self, enqueue=None, **options):
        """Run a trigger until the block ends."""
        trigger = self.create_trigger(enqueue, **options)
        async with asyncio.TaskGroup() as group:
            group.create_task(trigger.run())
            try:
                yield trigger
            finally:
                trigger.stop()
                trigger.stop()  # a second call is harmless

    async def count_accepted(self):
        """Return the number of pairs in the ledger."""
        return (await self.ledger.reports.get_books()).accepted


async def wait_until(condition):
    """Wait until a condition is true, because of another task or process."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def wait_for_message_count(queue, count):
    """Wait until the queue has this number of messages."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while await queue.broker_server.count_messages(queue.name) != count:
            await asyncio.sleep(0.05)


@pytest.fixture
async def queue(broker_server, ledger):
    """A queue with a dead-letter queue, and a ledger."""
    name = create_queue_name()
    await broker_server.create_queue(name)
    return QueueSetup(broker_server, ledger, name, [f"s3://{BUCKET}/lists"])


def encode_pairs_message(*send_ids, **members):
    """Return a message with a list of pairs and these other members."""
    pairs = [{"campaign_id": "c", "send_id": send_id} for send_id in send_ids]
    return json.dumps({"version": 1, "pairs": pairs} | members).encode()


one_broker = pytest.mark.parametrize("broker_server", ["redis"], indirect=True)
