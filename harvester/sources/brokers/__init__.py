"""Message brokers, each one file behind one small protocol; their clients are extras, imported where they are used."""

from importlib import import_module
from typing import Any

from harvester.errors import UsageError, install_hint
from harvester.sources.brokers.broker import Broker, Delivery

__all__ = ["Broker", "Delivery", "broker"]

_CLIENTS = {"rabbitmq": "aio_pika", "sqs": "aiobotocore", "nats": "nats", "redis": "redis"}


def broker(kind: str, **options: Any) -> Broker:
    """Give the broker of a kind, not yet connected. Raises ``UsageError`` where its client is not installed."""
    try:
        made: Broker = import_module(f"harvester.sources.brokers.{kind}").Queue(**options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _CLIENTS[kind]:
            raise
        raise UsageError(f"a trigger of kind {kind} needs its client; {install_hint(kind)}") from None
    return made
