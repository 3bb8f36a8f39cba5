"""Files of Currents for tests."""

import gc
import io
import json
import tracemalloc
from datetime import UTC, datetime

import fastavro

from harvester.model import BadLine, SentPair
from harvester.sources import Input
from harvester.sources.currents import CurrentsReader
from harvester.sources.lists.listed_files import ListedFile

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
DAY = 86_400
SENT = int(NOW) - 3 * DAY
EMAIL = "users.messages.email.Send"
OPTIONAL_STRING = ["null", "string"]

TYPES = {"id": "string", "user_id": "string", "time": "int", "email_address": "string"} | dict.fromkeys(
    (
        "dispatch_id",
        "external_user_id",
        "timezone",
        "campaign_id",
        "campaign_name",
        "message_variation_id",
        "canvas_id",
        "canvas_name",
        "canvas_step_id",
        "send_id",
        "message_extras",
        "app_group_id",
        "from_domain",
    ),
    OPTIONAL_STRING,
)
"""The fields of the events of sent emails, in the newest version of the documentation of Currents."""


def create_schema(types=TYPES, name=f"dataexport.S3.inner.{EMAIL}"):
    """Return the schema of a file of events, as Currents writes it."""
    fields = [
        {"name": key, "type": kind} | ({"default": None} if kind is OPTIONAL_STRING else {})
        for key, kind in types.items()
    ]
    return {"type": "record", "name": name, "fields": fields}


def create_event(campaign_id="c", send_id="s", time=SENT, **fields):
    """Return the event of a send for one user."""
    user_fields = {"id": "e1", "user_id": "u1", "email_address": "someone@example.com", "canvas_id": None}
    return user_fields | {"campaign_id": campaign_id, "send_id": send_id, "time": time} | fields


def encode_avro(events, *, schema=None, codec="null", block_bytes=16_000):
    """Return the bytes of an Avro file with these events."""
    file = io.BytesIO()
    fastavro.writer(file, schema or create_schema(), events, codec=codec, sync_interval=block_bytes)
    return file.getvalue()


def write_currents_file(folder, data, *, event_type=EMAIL, name="dataexport.prod-01.S3.integration.1+0+1.avro"):
    """Write a file to the path that Currents would use, and return the path."""
    path = folder / "dataexport.prod-01.S3.integration.1" / f"event_type={event_type}" / "date=2026-11-20-17" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_events(folder, events, *, schema=None, **path):
    """Write events to a file of Currents, and return its path."""
    return write_currents_file(folder, encode_avro(events, schema=schema), **path)


def read_currents(*places, workspaces=("default",), now=NOW):
    """Read places of Currents; return the sends as ``{(campaign, send): sent_at}``, the bad lines and the input."""
    source = Input([str(place) for place in places], workspaces=workspaces, stdin=io.BytesIO(), now=now)
    found = [each for each in source.read() if each is not None]
    sends = [each for each in found if isinstance(each, SentPair)]
    sent_times = {(each.pair.campaign_id, each.pair.send_id): each.sent_at for each in sends}
    assert len(sent_times) == len(sends), "each send is returned once"
    return sent_times, [each for each in found if isinstance(each, BadLine)], source


def create_reader(data, name="bucket/a.avro"):
    """Return a reader of one file in memory."""
    return CurrentsReader([ListedFile(name, lambda: io.BytesIO(data))], workspace="w", now=NOW)


def encode_avro_with_header(codec, schema, block=b""):
    """Return a file with any codec and any schema, even those that a writer would refuse."""
    fixed = ({"type": "fixed", "name": name, "size": size} for name, size in (("magic", 4), ("sync", 16)))
    types = dict(zip(("magic", "sync"), fixed, strict=True))
    kinds = (("magic", types["magic"]), ("meta", {"type": "map", "values": "bytes"}), ("sync", types["sync"]))
    header = {"type": "record", "name": "header", "fields": [{"name": name, "type": kind} for name, kind in kinds]}
    meta = {"avro.codec": codec.encode(), "avro.schema": json.dumps(schema).encode()}
    file = io.BytesIO()
    fastavro.schemaless_writer(file, header, {"magic": b"Obj\x01", "meta": meta, "sync": b"-" * 16})
    return file.getvalue() + block


def measure_peak(work):
    """Return the peak of the memory that some work took, in bytes, and the result of the work.

    Garbage of cycles counts until it is collected, so it is collected as often as by Python's default. What other tests
    left is excluded from now on: the more there is, the rarer is a full collection.
    """
    gc.collect()
    gc.freeze()
    threshold = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()
        gc.set_threshold(*threshold)
