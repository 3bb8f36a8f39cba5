"""Broker servers for tests: real servers that can be killed, restarted and inspected.

Each broker has a module with a class that implements ``BrokerServer``.
"""

import uuid
from importlib import import_module
from pathlib import Path

from tests.support.brokers.broker_server import LEASE_SECONDS, BrokerServer

__all__ = ["BROKER_SERVERS", "LEASE_SECONDS", "BrokerServer", "create_queue_name", "start_broker_server"]


BROKER_SERVERS = {"rabbitmq": "RabbitMQ", "sqs": "SQS", "nats": "NATS", "redis": "RedisStreams"}
"""The class of each kind of broker. Its module has the name of the kind."""


def start_broker_server(kind: str, folder: Path) -> BrokerServer:
    """Start a broker server. Its module is imported only here, because most tests need no broker."""
    module = import_module(f"tests.support.brokers.{kind}")
    return getattr(module, BROKER_SERVERS[kind])(folder)


def create_queue_name() -> str:
    """Return a name that no other test uses."""
    return f"q{uuid.uuid4().hex[:12]}"
