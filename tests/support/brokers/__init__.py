"""Broker servers for tests: real servers that can be killed, restarted and inspected.

Each broker has a module with a class that implements ``BrokerServer``.
"""

import uuid

from tests.support.brokers.broker_server import LEASE_SECONDS, BrokerServer
from tests.support.brokers.nats import NATS
from tests.support.brokers.rabbitmq import RabbitMQ
from tests.support.brokers.redis import RedisStreams
from tests.support.brokers.sqs import SQS

__all__ = ["BROKER_SERVERS", "LEASE_SECONDS", "BrokerServer", "RabbitMQ", "queue_name"]


BROKER_SERVERS = {broker_server.kind: broker_server for broker_server in (RabbitMQ, SQS, NATS, RedisStreams)}


def queue_name() -> str:
    """A name that no other test uses."""
    return f"q{uuid.uuid4().hex[:12]}"
