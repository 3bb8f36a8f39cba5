"""Message brokers: one file each, behind the protocol in ``broker.py``.

To add a broker:

1. Write ``brokers/<kind>.py`` with a class that implements ``Broker``, and add it to ``_BROKERS`` below.
2. Add a model for its settings to ``settings/triggers.py``, and to ``KINDS`` and the union there. Its ``options()``
   are the arguments of the class.
3. Add its client library to ``pyproject.toml``, as an extra named ``<kind>`` and in the extra ``test``. Add it to
   ``ALLOWED_IMPORTERS`` in ``tests/test_layers.py`` and to the extras in ``tests/system/test_supply_chain.py``. Then
   run ``scripts/dependencies renew``.
4. Add a test server to ``tests/support/brokers/`` and its ``BROKER_SERVERS``. ``tests/conformance/test_brokers.py``
   then tests the broker.
5. Describe it in ``docs/triggers.md``.

No other code depends on the kind of a broker: triggers, the service and the status page work with all of them.
"""

from importlib import import_module
from typing import Any, NamedTuple

from harvester.errors import UsageError, install_hint
from harvester.sources.brokers.broker import Broker, Delivery

__all__ = ["Broker", "Delivery", "create_broker"]


class _Implementation(NamedTuple):
    """The class of a broker in ``brokers/<kind>.py``, and the client library that this module imports."""

    class_name: str
    client_library: str


_BROKERS = {
    "rabbitmq": _Implementation("RabbitMQBroker", "aio_pika"),
    "sqs": _Implementation("SQSBroker", "aiobotocore"),
    "nats": _Implementation("NATSBroker", "nats"),
    "redis": _Implementation("RedisBroker", "redis"),
}


def create_broker(kind: str, **options: Any) -> Broker:
    """Create a broker that is not connected yet. Raises ``UsageError`` if its client library is not installed."""
    class_name, client_library = _BROKERS[kind]
    try:
        module = import_module(f"harvester.sources.brokers.{kind}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != client_library:
            raise
        raise UsageError(f"a trigger of kind {kind} needs its client library; {install_hint(kind)}") from None
    broker: Broker = getattr(module, class_name)(**options)
    return broker
