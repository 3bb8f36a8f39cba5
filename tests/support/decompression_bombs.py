"""Small inputs that expand to gigabytes, one for each format. They are created on demand."""

import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import orjson

from tests.support.faulty_server import build_response

_ZEROS = b"0" * (1 << 20)


def compress_zeros(mebibytes: int) -> bytes:
    """Return a gzip stream of zeros: after a full flush the same block can be repeated."""
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    begun, again = (stream.compress(_ZEROS) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return begun + again * mebibytes


def _success(data: bytes) -> bytes:
    return b'{"message":"success","data":' + data + b"}"


def _counters(count: int) -> bytes:
    day = {"time": "2026-01-01", "messages": {"email": [{f"counter {number}": 1 for number in range(count)}]}}
    return _success(orjson.dumps([day]))


def answers() -> Iterator[tuple[str, bytes]]:
    """Return HTTP responses."""
    yield "gzip", build_response(compress_zeros(1000), "Content-Encoding: gzip")
    yield "gzip of a refusal", build_response(compress_zeros(1000), "Content-Encoding: gzip", status="400 Bad")
    yield "brackets", build_response(_success(b"[" * (7 << 20)))
    yield "empty lists", build_response(_success(b"[" + b"[]," * 1_000_000 + b"[]]"))
    yield "20,000 counters", build_response(_counters(20_000))
    yield "digits", build_response(_success(b"[" + b"9" * (1 << 20) + b"]"))


def messages() -> Iterator[tuple[str, bytes]]:
    """Return bodies of messages."""
    pair = b'{"campaign_id":"c","send_id":"s"}'
    yield "brackets", b"[" * (1 << 20)
    yield "nothing", b'{"version":1,"pairs":[' + b"0," * 100_000 + b"0]}"
    yield "pairs", b'{"version":1,"pairs":[' + b",".join([pair] * 3000) + b"]}"
    yield "members", b'{"version":1,' + b",".join(b'"%d":0' % n for n in range(80_000)) + b"}"
    yield "events", b'{"Records":[' + b"{}," * 60_000 + b"{}]}"
    yield "large", b" " * (64 << 20)


def _parquet(cells: str, rows: int) -> bytes:
    with duckdb.connect() as connection, tempfile.TemporaryDirectory() as folder:
        query = f"SELECT {cells} AS campaign_id, 's' || i AS send_id FROM range({rows}) t(i)"
        connection.execute(f"COPY ({query}) TO '{folder}/p.parquet' (COMPRESSION zstd)")
        return (Path(folder) / "p.parquet").read_bytes()


def lists() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Return lists of pairs by name."""
    header = b"campaign_id,send_id\n"
    yield "line.csv", lambda: header + b"x" * (50 << 20)
    yield "brackets.ndjson", lambda: b"[" * (50 << 20)
    yield "cells.parquet", lambda: _parquet("repeat('x', 2000000)", 200)
    yield "one.parquet", lambda: _parquet("repeat('x', 100000000)", 2)
