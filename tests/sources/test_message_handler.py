"""The handler of messages, without a broker."""

import asyncio
import json
import tempfile

import pytest

from harvester.clock import BrazeClock, SystemClock
from harvester.errors import StorageError
from harvester.sources.brokers import Delivery
from harvester.sources.messages.message import MessageParser
from harvester.sources.messages.message_handler import MessageHandler


async def test_a_long_list_waits_while_there_is_no_temporary_folder(monkeypatch, tmp_path):
    """The message is valid, so it is not dead-lettered. The error names the folder, and the trigger shows it."""
    pairs = [{"campaign_id": "c", "send_id": str(number)} for number in range(10_001)]
    long_list = Delivery(json.dumps({"version": 1, "pairs": pairs}).encode(), 1, None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    enqueued, dead = [], []

    async def enqueue(arrivals, *, once):
        enqueued.extend(arrivals)

    async def dead_letter(*letter):
        dead.append(letter)

    handler = MessageHandler(
        "sends",
        parser=MessageParser(("eu",), ()),
        enqueue=enqueue,
        dead_letter=dead_letter,
        stopping=asyncio.Event(),
        clock=BrazeClock(SystemClock()),
    )
    with pytest.raises(StorageError, match=str(tmp_path / "none")) as error:
        await handler.handle([long_list])
    assert (error.value.cause, enqueued, dead) == ("not_found", [], [])
