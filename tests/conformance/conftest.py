"""Fixtures of the conformance suites."""

from datetime import timedelta

import pytest

from harvester.storage import object_store
from tests.support.queues import broker_server, ledger, queue  # noqa: F401 - fixtures


@pytest.fixture
def fast_retries(monkeypatch):
    """Make requests to stores retry without a pause."""
    soon = timedelta(milliseconds=1)
    monkeypatch.setitem(object_store._RETRIES, "backoff", {"init_backoff": soon, "max_backoff": soon, "base": 2})
