"""Strategies for input from outside, which break each format where it can be broken.

Each returns bytes as on the wire or in a file: messages of brokers and lists of pairs.
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

_MARKS = {
    f"@{kind}{levels}@": opening * levels + b"1" + closing * levels
    for kind, opening, closing in (("list", b"[", b"]"), ("object", b'{"a":', b"}"))
    for levels in (99, 101, 129, 254, 255, 300, 1000, 2000)
} | {
    "@huge@": b"9" * 400, "@e308@": b"1e308", "@minus@": b"-0", "@2e63@": b"9223372036854775808",
    "@many@": b"[" + b"[]," * 2000 + b"[]]",
}  # fmt: skip
"""Values that no encoder writes; each stands in a document as its mark until that is encoded."""

_UNREADABLE = [b"1e999", b"NaN", b'"\\ud800"', b'"\xff\xfe"', b"'c'", b"//", b"\x00"]
"""What no JSON may hold; it is put in at random."""

TEXTS = st.text(max_size=70) | st.sampled_from(
    ["", " ", "c", "s", "\x00", "\ud800", "a\udfffb", "\u202e", "\x1b[2J", "\r\n", "=cmd", "../x", "x" * 65, "x" * 5000,
     "2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999+23:59", "0001-01-01T00:00:00-23:59", "1e9", "İ", "\ufeff"]
)  # fmt: skip
SCALARS = TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(sorted(_MARKS))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)


def encode_json(value: object) -> bytes:
    """Write a value as JSON, with lone surrogates as escapes."""
    text = json.dumps(value).encode()
    for mark, raw in _MARKS.items():
        text = text.replace(b'"' + mark.encode() + b'"', raw)
    return text


@st.composite
def damage(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return bytes with some lost, repeated, changed or inserted."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        data[at : at + length] = draw(
            st.binary(max_size=8) | st.just(bytes(data[at : at + length]) * 2) | st.sampled_from(_UNREADABLE)
        )
    return bytes(data)


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[T], rare: st.SearchStrategy[T], *, one_in: int = 5) -> T:
    """Return the usual value, and rarely an unusual one: all at once would end at the first check."""
    return draw(rare if draw(st.integers(1, one_in)) == one_in else usual)


def some(members: dict[str, st.SearchStrategy[object]], required: tuple[str, ...] = ()) -> st.SearchStrategy[dict]:
    """Return objects with some of these members, or none; sometimes with an unknown one."""
    named = st.fixed_dictionaries(
        {name: members[name] for name in required},
        optional={name: each for name, each in members.items() if name not in required},
    )
    more = st.dictionaries(TEXTS, VALUES, min_size=1, max_size=1)
    return mostly(named, st.builds(lambda known, unknown: known | unknown, named, more), one_in=10)


def often(*usual: object) -> st.SearchStrategy[object]:
    """Mostly the usual value, sometimes anything."""
    return mostly(st.sampled_from(usual), mostly(VALUES, st.sampled_from(sorted(_MARKS)), one_in=2), one_in=8)


# Messages

_PAIR = {
    "campaign_id": often("c", "d"), "send_id": often("s", "t"), "workspace": often("eu", None),
    "sent_at": often("2025-12-31T00:00:00Z", None),
}  # fmt: skip
_POINTERS = often("s3://lists/a.csv", "s3://lists/b.ndjson", "s3://lists/none.csv", "s3://other/a.csv", "file:///etc/x")


def _event(name: object, bucket: object, key: object) -> dict[str, object]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 5}}}


_EVENTS = some({
    "Records": st.lists(
        st.builds(_event, often("ObjectCreated:Put", "s3:ObjectCreated:Put", "ObjectRemoved:Delete"),
                  often("lists", "other"), often("a.csv", "b.ndjson", "a+b.csv", "%2e%2e/a.csv")) | VALUES,
        max_size=3,
    ),
    "EventName": often("s3:ObjectCreated:Put"), "Key": often("lists/a.csv"), "Event": often("s3:TestEvent"),
    "detail-type": often("Object Created"),
    "detail": some({"bucket": some({"name": often("lists")}), "object": some({"key": often("a.csv")})}) | VALUES,
})  # fmt: skip
_OWN = some(
    {"version": often(1), "once": often(True),  # noqa: FBT003 - it is a value among others
     "file": _POINTERS,
     "pairs": st.lists(mostly(some(_PAIR, ("campaign_id", "send_id")), VALUES), max_size=5)} | _PAIR,
    required=("version",),
)  # fmt: skip
_PLAIN = st.builds(lambda pair: {"version": 1} | pair, some(_PAIR, ("campaign_id", "send_id")))
_LISTED = st.builds(
    lambda records: {"version": 1, "pairs": records}, st.lists(mostly(some(_PAIR), VALUES), min_size=1, max_size=6)
)


def _wrap_in_sns(document: object) -> dict[str, object]:
    """Return a message as SNS forwards it."""
    return {"Type": "Notification", "Message": encode_json(document).decode("latin-1")}


_DOCUMENTS = mostly(_PLAIN | _LISTED | _OWN | _EVENTS, VALUES, one_in=10)
_BODIES = st.builds(encode_json, mostly(_DOCUMENTS, st.builds(_wrap_in_sns, _DOCUMENTS)))
_PACKERS = [gzip.compress, zlib.compress, zstandard.compress, lambda body: b"\xff\xfe" + body, lambda body: body + body]
_PACKED = st.builds(lambda pack, body: pack(body), st.sampled_from(_PACKERS), _BODIES)
MESSAGES = mostly(_BODIES, _BODIES.flatmap(damage) | st.binary(max_size=100) | _PACKED)


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
    """Return a list as a spreadsheet, or a careless script, writes it."""
    header, quoted = draw(_HEADERS), draw(st.booleans())
    width = st.just(header.count(",") + 1) if draw(st.integers(0, 3)) else st.integers(1, 4)
    rows = draw(st.lists(width.flatmap(lambda count: st.lists(_FIELDS, min_size=count, max_size=count)), max_size=6))
    text = draw(st.sampled_from(["\n", "\r\n", "\r"])).join([header, *(_row(row, quoted=quoted) for row in rows)])
    mark = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00"]))
    return mark + text.encode("utf-8", "surrogatepass")


_NDJSON = st.builds(
    lambda rows, end: end.join(rows), st.lists(st.builds(encode_json, mostly(some(_PAIR), VALUES)), max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b""]),
)  # fmt: skip


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
