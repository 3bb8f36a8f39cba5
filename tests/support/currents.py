"""Files of Currents for tests."""

import io
import json
import tracemalloc
from datetime import UTC, datetime

import fastavro

from harvester.model import BadLine, SentPair
from harvester.sources import Input
from harvester.sources.currents import CurrentsReader

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
DAY = 86_400
SENT = int(NOW) - 3 * DAY
EMAIL = "users.messages.email.Send"
MAYBE = ["null", "string"]

TYPES = {
    "id": "string", "user_id": "string", "dispatch_id": MAYBE, "external_user_id": MAYBE, "time": "int",
    "timezone": MAYBE, "campaign_id": MAYBE, "campaign_name": MAYBE, "message_variation_id": MAYBE,
    "email_address": "string", "canvas_id": MAYBE, "canvas_name": MAYBE, "canvas_step_id": MAYBE, "send_id": MAYBE,
    "message_extras": MAYBE, "app_group_id": MAYBE, "from_domain": MAYBE,
}  # fmt: skip
"""Fields of the events of sent emails (documentation of Currents' events), the newest version of them."""


def schema(types=TYPES, name=f"dataexport.S3.inner.{EMAIL}"):
    """The schema of a file of events, as Currents writes it."""
    fields = [{"name": key, "type": kind} | ({"default": None} if kind is MAYBE else {}) for key, kind in types.items()]
    return {"type": "record", "name": name, "fields": fields}


def event(campaign_id="c", send_id="s", when=SENT, **more):
    """One user's event of a send."""
    about = {"id": "e1", "user_id": "u1", "email_address": "someone@example.com", "canvas_id": None}
    return about | {"campaign_id": campaign_id, "send_id": send_id, "time": when} | more


def avro(events, *, kind=None, codec="null", block_bytes=16_000):
    """The bytes of an Avro file with these events."""
    file = io.BytesIO()
    fastavro.writer(file, kind or schema(), events, codec=codec, sync_interval=block_bytes)
    return file.getvalue()


def put(folder, data, *, event_type=EMAIL, name="dataexport.prod-01.S3.integration.1+0+1.avro"):
    """Write a file where Currents would."""
    path = folder / "dataexport.prod-01.S3.integration.1" / f"event_type={event_type}" / "date=2026-11-20-17" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(*places, workspaces=("default",), now=NOW):
    """Read places of Currents; return the sends as ``{(campaign, send): sent_at}``, the bad lines and the input."""
    source = Input([str(place) for place in places], workspaces=workspaces, stdin=io.BytesIO(), now=now)
    found = [each for each in source.read() if each is not None]
    sends = [each for each in found if isinstance(each, SentPair)]
    sent_times = {(each.pair.campaign_id, each.pair.send_id): each.sent_at for each in sends}
    assert len(sent_times) == len(sends), "each send is returned once"
    return sent_times, [each for each in found if isinstance(each, BadLine)], source


def in_memory(data, name="bucket/a.avro"):
    """A reader of one file in memory."""
    return CurrentsReader([(name, lambda: io.BytesIO(data))], workspace="w", now=NOW)


def with_header(codec, written, block=b""):
    """A file with any codec and any schema, even those that a writer would refuse."""
    fixed = ({"type": "fixed", "name": name, "size": size} for name, size in (("magic", 4), ("sync", 16)))
    types = dict(zip(("magic", "sync"), fixed, strict=True))
    kinds = (("magic", types["magic"]), ("meta", {"type": "map", "values": "bytes"}), ("sync", types["sync"]))
    header = {"type": "record", "name": "header", "fields": [{"name": name, "type": kind} for name, kind in kinds]}
    meta = {"avro.codec": codec.encode(), "avro.schema": json.dumps(written).encode()}
    file = io.BytesIO()
    fastavro.schemaless_writer(file, header, {"magic": b"Obj\x01", "meta": meta, "sync": b"-" * 16})
    return file.getvalue() + block


def measure_peak(work):
    """Return the most memory that some work took, in bytes, and its result."""
    tracemalloc.start()
    try:
        given_back = work()
        return tracemalloc.get_traced_memory()[1], given_back
    finally:
        tracemalloc.stop()
