"""Strategies that generate invalid and unusual input in every format: messages of brokers, and lists of pairs.

Each returns bytes as they are on the wire or in a file.
"""

import gzip
import io
import json
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import TypeVar

import duckdb
import fastavro
import zstandard
from hypothesis import strategies as st

T = TypeVar("T")

_RAW_VALUES = {
    f"@{kind}{levels}@": opening * levels + b"1" + closing * levels
    for kind, opening, closing in (("list", b"[", b"]"), ("object", b'{"a":', b"}"))
    for levels in (99, 101, 129, 254, 255, 300, 1000, 2000)
} | {
    "@huge@": b"9" * 400,
    "@e308@": b"1e308",
    "@minus@": b"-0",
    "@2e63@": b"9223372036854775808",
    "@many@": b"[" + b"[]," * 2000 + b"[]]",
}
"""Values that no encoder writes. A document contains the mark of a value; ``encode_json`` replaces it by the bytes."""

_UNREADABLE = [b"1e999", b"NaN", b'"\\ud800"', b'"\xff\xfe"', b"'c'", b"//", b"\x00"]
"""Bytes that are invalid in JSON. They are inserted at random."""

_CONTROL_TEXTS = ["\x00", "\ud800", "a\udfffb", "\u202e", "\x1b[2J", "\r\n"]
_TIMES = ["2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999+23:59", "0001-01-01T00:00:00-23:59"]
TEXTS = st.text(max_size=70) | st.sampled_from(
    [*_CONTROL_TEXTS, "", " ", "c", "s", "=cmd", "../x", "x" * 65, "x" * 5000, *_TIMES, "1e9", "İ", "\ufeff"]
)
SCALARS = TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(sorted(_RAW_VALUES))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)


def encode_json(value: object) -> bytes:
    """Encode a value as JSON, with lone surrogates as escapes, and replace the marks by their raw values."""
    text = json.dumps(value).encode()
    for mark, raw in _RAW_VALUES.items():
        text = text.replace(b'"' + mark.encode() + b'"', raw)
    return text


@st.composite
def damage(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return the bytes with some of them lost, repeated, changed or inserted."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        data[at : at + length] = draw(
            st.binary(max_size=8) | st.just(bytes(data[at : at + length]) * 2) | st.sampled_from(_UNREADABLE)
        )
    return bytes(data)


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[T], rare: st.SearchStrategy[T], *, one_in: int = 5) -> T:
    """Return mostly a usual value, so that one unusual value reaches all checks instead of failing at the first."""
    return draw(rare if draw(st.integers(1, one_in)) == one_in else usual)


def objects_with(
    members: dict[str, st.SearchStrategy[object]], required: tuple[str, ...] = ()
) -> st.SearchStrategy[dict]:
    """Return objects with the required members and some of the others, sometimes with an unknown member."""
    named = st.fixed_dictionaries(
        {name: members[name] for name in required},
        optional={name: each for name, each in members.items() if name not in required},
    )
    more = st.dictionaries(TEXTS, VALUES, min_size=1, max_size=1)
    return mostly(named, st.builds(lambda known, unknown: known | unknown, named, more), one_in=10)


def usually(*usual: object) -> st.SearchStrategy[object]:
    """Return mostly one of these values, and sometimes any other value."""
    return mostly(st.sampled_from(usual), mostly(VALUES, st.sampled_from(sorted(_RAW_VALUES)), one_in=2), one_in=8)


# Messages

_PAIR = {
    "campaign_id": usually("c", "d"),
    "send_id": usually("s", "t"),
    "workspace": usually("eu", None),
    "sent_at": usually("2025-12-31T00:00:00Z", None),
}
_FILE_URLS = usually(
    "s3://lists/a.csv", "s3://lists/b.ndjson", "s3://lists/none.csv", "s3://other/a.csv", "file:///etc/x"
)


def _event(name: object, bucket: object, key: object) -> dict[str, object]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 5}}}


_EVENTS = objects_with(
    {
        "Records": st.lists(
            st.builds(
                _event,
                usually("ObjectCreated:Put", "s3:ObjectCreated:Put", "ObjectRemoved:Delete"),
                usually("lists", "other"),
                usually("a.csv", "b.ndjson", "a+b.csv", "%2e%2e/a.csv"),
            )
            | VALUES,
            max_size=3,
        ),
        "EventName": usually("s3:ObjectCreated:Put"),
        "Key": usually("lists/a.csv"),
        "Event": usually("s3:TestEvent"),
        "detail-type": usually("Object Created"),
        "detail": objects_with(
            {"bucket": objects_with({"name": usually("lists")}), "object": objects_with({"key": usually("a.csv")})}
        )
        | VALUES,
    }
)
_VERSION_1 = objects_with(
    {
        "version": usually(1),
        "once": usually(True),  # noqa: FBT003 - it is a value, not a flag
        "file": _FILE_URLS,
        "pairs": st.lists(mostly(objects_with(_PAIR, ("campaign_id", "send_id")), VALUES), max_size=5),
    }
    | _PAIR,
    required=("version",),
)
_ONE_PAIR = st.builds(lambda pair: {"version": 1} | pair, objects_with(_PAIR, ("campaign_id", "send_id")))
_PAIR_LISTS = st.builds(
    lambda records: {"version": 1, "pairs": records},
    st.lists(mostly(objects_with(_PAIR), VALUES), min_size=1, max_size=6),
)


def _wrap_in_sns(document: object) -> dict[str, object]:
    """Return a message as SNS forwards it."""
    return {"Type": "Notification", "Message": encode_json(document).decode("latin-1")}


_DOCUMENTS = mostly(_ONE_PAIR | _PAIR_LISTS | _VERSION_1 | _EVENTS, VALUES, one_in=10)
_BODIES = st.builds(encode_json, mostly(_DOCUMENTS, st.builds(_wrap_in_sns, _DOCUMENTS)))
_COMPRESSORS = [
    gzip.compress,
    zlib.compress,
    zstandard.compress,
    lambda body: b"\xff\xfe" + body,
    lambda body: body + body,
]
_COMPRESSED = st.builds(lambda compress, body: compress(body), st.sampled_from(_COMPRESSORS), _BODIES)
MESSAGES = mostly(_BODIES, _BODIES.flatmap(damage) | st.binary(max_size=100) | _COMPRESSED)


# Lists of pairs

_FIELDS = mostly(
    st.sampled_from(["c", "s", "2025-12-31"]), TEXTS | st.sampled_from(['"', '"c', 'c"', "a,b", "c\ns", "\t", ";"])
)


def _row(fields: list[str], *, quoted: bool) -> str:
    return ",".join('"' + each.replace('"', '""') + '"' if quoted else each for each in fields)


_HEADERS = mostly(
    st.sampled_from(["campaign_id,send_id,sent_at", "campaign_id,send_id", '"campaign_id","send_id"']),
    st.sampled_from(["send_id;campaign_id", "", "campaign_id,campaign_id,send_id", "Campaign_ID,send_id"]),
)


@st.composite
def _csv(draw: st.DrawFn) -> bytes:
    """Return a list as spreadsheets and scripts with mistakes write it."""
    header, quoted = draw(_HEADERS), draw(st.booleans())
    width = st.just(header.count(",") + 1) if draw(st.integers(0, 3)) else st.integers(1, 4)
    rows = draw(st.lists(width.flatmap(lambda count: st.lists(_FIELDS, min_size=count, max_size=count)), max_size=6))
    text = draw(st.sampled_from(["\n", "\r\n", "\r"])).join([header, *(_row(row, quoted=quoted) for row in rows)])
    mark = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00"]))
    return mark + text.encode("utf-8", "surrogatepass")


_NDJSON = st.builds(
    lambda rows, end: end.join(rows),
    st.lists(st.builds(encode_json, mostly(objects_with(_PAIR), VALUES)), max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b""]),
)


@cache
def _parquet() -> bytes:
    """Return a list as a Parquet file of a data lake."""
    with duckdb.connect() as connection, tempfile.TemporaryDirectory() as folder:
        rows = "SELECT 'c' AS campaign_id, 's' || i AS send_id, now() AS sent_at FROM range(9) t(i)"
        connection.execute(f"COPY ({rows}) TO '{folder}/p.parquet'")
        return (Path(folder) / "p.parquet").read_bytes()


@cache
def _avro() -> bytes:
    """Return events as Currents writes them."""
    maybe = ["null", "string"]
    fields = {"id": "string", "user_id": "string", "time": "int", "campaign_id": maybe, "send_id": maybe}
    named = [{"name": name, "type": kind} for name, kind in fields.items()]
    schema = {"type": "record", "name": "dataexport.S3.inner.users.messages.email.Send", "fields": named}
    about = {"id": "e", "user_id": "u", "time": 1_767_000_000, "campaign_id": "c"}
    with io.BytesIO() as file:
        fastavro.writer(file, schema, [about | {"send_id": f"s{number}"} for number in range(9)], codec="deflate")
        return file.getvalue()


_RAW = st.binary(max_size=120)
LISTS: dict[str, st.SearchStrategy[bytes]] = {
    ".csv": mostly(_csv(), _csv().flatmap(damage) | _RAW),
    ".ndjson": mostly(_NDJSON, _NDJSON.flatmap(damage) | _RAW),
    ".parquet": st.deferred(lambda: damage(_parquet())) | _RAW,
    ".avro": st.deferred(lambda: damage(_avro())) | _RAW,
}
