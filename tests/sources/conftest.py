"""Fixtures of queues on broker servers."""

from tests.support.queues import broker_server, ledger, queue  # noqa: F401 - fixtures
