"""Lists that are small on disk and large in memory, or never end: each is read or refused within a stated bound."""

import bz2
import io
import lzma
import struct
import zlib
from pathlib import Path

import duckdb
import pytest

from harvester.datasets.parquet import MAX_FOOTER_BYTES
from harvester.errors import UsageError
from harvester.model import BadLine, Enqueued
from harvester.sources import Input
from harvester.sources.avro import MAX_BLOCK_BYTES
from harvester.sources.currents import CurrentsReader
from harvester.sources.lines import MAX_CHARACTERS
from tests.sources.test_currents import EMAIL, MAYBE, NOW, SENT, headed

BOUND_MIB = 256
"""What reading a list may add to a process's memory; the documentation of lists names it."""


def memory_mib(field: str) -> float:
    """What the kernel counts for this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def read_within_bound(source) -> tuple[list[Enqueued], list[BadLine]]:
    """Read all; gives pairs and bad lines once it is clear that memory did not grow beyond the bound."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory_mib("VmRSS")
    try:
        found = list(source.read())
    finally:
        assert memory_mib("VmHWM") - before < BOUND_MIB
    return [each for each in found if isinstance(each, Enqueued)], [each for each in found if isinstance(each, BadLine)]


def listed(name, data=b"") -> Input:
    """A list by its name, or of these bytes."""
    return Input([str(name)], workspaces=["w"], stdin=io.BytesIO(data), now=NOW)


def test_a_parquet_file_whose_cells_are_huge_is_bad_lines_that_show_a_few_letters(tmp_path):
    """3 KB on disk, eight gigabytes as texts: the cells are cut before they leave the database."""
    path = tmp_path / "bomb.parquet"
    cells = "'c' AS campaign_id, repeat('x', 2000000) AS send_id, repeat('y', 2000000) AS sent_at"
    duckdb.execute(f"COPY (SELECT {cells} FROM range(400)) TO '{path}' (COMPRESSION zstd)")
    assert path.stat().st_size < 10_000
    pairs, bad = read_within_bound(listed(path))
    assert (pairs, len(bad)) == ([], 400)
    assert all(each.problem == "is longer than 64 characters" and len(each.text) <= 500 for each in bad)


def test_a_parquet_page_beyond_the_bound_is_refused_in_a_sentence(tmp_path):
    """Distinct cells need their whole page in memory."""
    path = tmp_path / "bomb.parquet"
    cells = "'c' AS campaign_id, repeat(chr(97 + i::INT), 4000000 - i) AS send_id"
    duckdb.execute(f"COPY (SELECT {cells} FROM range(26) t(i)) TO '{path}' (COMPRESSION zstd)")
    with pytest.raises(UsageError, match="more than 128 MB of memory"):
        read_within_bound(listed(path))


def test_the_cells_of_other_columns_cost_nothing(tmp_path):
    """A table of message bodies is read for its ids alone."""
    path = tmp_path / "bodies.parquet"
    cells = "'c' AS campaign_id, 's' || i AS send_id, repeat('x', 4000000 - i) AS body"
    duckdb.execute(f"COPY (SELECT {cells} FROM range(26) t(i)) TO '{path}' (COMPRESSION zstd)")
    assert len(read_within_bound(listed(path))[0]) == 26


def test_a_parquet_footer_beyond_the_bound_is_refused_unread(tmp_path):
    """A footer becomes a hundred times its size in memory."""
    path = tmp_path / "wide.parquet"
    footer = b"\x15" * (MAX_FOOTER_BYTES + 1)
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(UsageError, match="its footer has"):
        read_within_bound(listed(path))


def long(value: int) -> bytes:
    """A number as Avro writes it."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(count: int, data: bytes) -> bytes:
    """A block of a file that ``headed`` begins."""
    return long(count) + long(len(data)) + data + b"-" * 16


def raw_deflate(data: bytes) -> bytes:
    """Deflate without a header, as Avro has it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


EVENT = long(1) + long(1) + b"c" + long(1) + long(1) + b"s" + long(SENT)
"""An event's campaign_id, send_id and time."""


def currents(extra, data, *, codec="null", count=1, raw=None) -> CurrentsReader:
    """One file of events with one more field, of a type ``extra``; ``raw`` stands in the place of its block."""
    types = {"campaign_id": MAYBE, "send_id": MAYBE, "time": "int", "extra": extra}
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    file = headed(codec, {"type": "record", "name": EMAIL, "fields": fields}, raw or block(count, data))
    return CurrentsReader([("a.avro", lambda: io.BytesIO(file))], workspace="w", now=NOW)


@pytest.mark.parametrize(
    ("codec", "pack"),
    [("deflate", raw_deflate), ("bzip2", bz2.compress), ("xz", lambda data: lzma.compress(data, preset=0))],
    ids=["deflate", "bzip2", "xz"],
)
def test_an_avro_block_is_decompressed_to_its_bound_and_no_further(codec, pack):
    """A thousandth of it on disk; what fits is read."""
    text = lambda size: EVENT + long(size) + b"x" * size  # noqa: E731 - one line, used twice
    pairs, bad = read_within_bound(currents("string", pack(text(MAX_BLOCK_BYTES - 100)), codec=codec))
    assert (len(pairs), bad) == (1, [])
    pairs, (refused,) = read_within_bound(currents("string", pack(text(MAX_BLOCK_BYTES)), codec=codec))
    assert (pairs, "smaller blocks" in refused.problem) == ([], True)


def test_an_avro_block_that_needs_a_large_dictionary_is_refused():
    """The decoder of xz would take what the block asks for, before it gives a byte."""
    data = lzma.compress(EVENT, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}])
    _, (refused,) = read_within_bound(currents("null", data, codec="xz"))
    assert "Memory usage limit" in refused.problem


ARRAY = {"type": "array", "items": "boolean"}


def record(name, *kinds):
    """A record of fields of these types."""
    fields = [{"name": f"f{at}", "type": kind} for at, kind in enumerate(kinds)]
    return {"type": "record", "name": name, "fields": fields}


NESTED = [record("R0", "null", "null"), *(record(f"R{at}", f"R{at - 1}", f"R{at - 1}") for at in range(1, 60))]


@pytest.mark.parametrize(
    ("extra", "data", "good"),
    [
        (ARRAY, long(1 << 40), False),
        (ARRAY, long(1 << 40) + b"\1" * 1000, False),
        (ARRAY, long(-1) + long(-3), False),  # a step back, for ever
        (ARRAY, long(-(1 << 40)) + long(1 << 40), False),
        ({"type": "array", "items": "string"}, long(1 << 40) + long(-1), False),
        ({"type": "array", "items": "null"}, long(1 << 60) + long(0), True),
        ({"type": "array", "items": {"type": "fixed", "name": "f", "size": 0}}, long(1 << 60) + long(0), True),
        ({"type": "map", "values": "null"}, long(1 << 40), False),
        ("string", long(1 << 40), False),
        ("string", long(-5), False),
        (["null", "string"], long(7), False),
        ("long", b"\xff" * 1000, False),
        ({"type": "array", "items": record("x", NESTED[0])}, long(1 << 60) + long(0), True),
        ([*NESTED, "null"], long(59), True),  # two of two of two: 2 ** 60 nothings
    ],
)  # fmt: skip
def test_avro_data_that_claims_to_be_endless_ends(extra, data, good):
    """Counts and lengths beyond the end of a block, steps backward, lists of what takes no byte."""
    pairs, bad = read_within_bound(currents(extra, EVENT + data))
    assert (len(pairs), len(bad)) == ((1, 0) if good else (0, 1))
    assert all("is incomplete or damaged" in each.problem for each in bad)


@pytest.mark.parametrize(
    "raw",
    [
        block(1 << 40, EVENT),
        block(-1, EVENT),
        long(1) + long(1 << 50) + b"x",
        long(1) + long(-1) + b"x",
        b"\xff" * 1000,
        block(1, EVENT * 2),
    ],
)
def test_avro_blocks_that_lie_about_their_size_are_damaged(raw):
    """So is one that holds more than its records: what was between them is lost."""
    pairs, bad = read_within_bound(currents("null", b"", raw=raw))
    assert (len(pairs), len(bad)) == (1 if raw == block(1, EVENT * 2) else 0, 1)


@pytest.mark.parametrize(
    "header",
    [
        long(1) + long(1 << 45),
        long(1 << 40) + (long(1) + b"a" + long(0)) * 1000,
        long(1) + long(11) + b"avro.schema" + long(400_000) + b"[" * 400_000 + long(0) + b"-" * 16,
        long(1) + long(11) + b"avro.schema" + long(2 << 20) + b" " * (2 << 20),
    ],
)
def test_an_avro_header_is_bounded(header):
    """What it says of its size is not believed, and depth ends no process."""
    file = b"Obj\x01" + header
    _, (bad,) = read_within_bound(CurrentsReader([("a.avro", lambda: io.BytesIO(file))], workspace="w", now=NOW))
    assert "its header is damaged" in bad.problem


@pytest.mark.parametrize(
    "line",
    [
        b'{"send_id":"s","campaign_id":[' + b"[]," * 340_000 + b"[]]}",
        b'{"send_id":"s","send_id":[' + b'{"a":0},' * 130_000 + b"0]}",
        b"[" * MAX_CHARACTERS,
    ],
)
def test_an_object_of_many_small_things_is_one_bad_line(line):
    """A megabyte of brackets is fifty as objects, and no more."""
    good = b'{"campaign_id":"c","send_id":"s"}\n'
    pairs, bad = read_within_bound(listed("-", good + line + b"\n" + good))
    assert (len(pairs), len(bad)) == (1, 1)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        (b"campaign_id,send_id", b"," * (MAX_CHARACTERS - 1)),
        (b"campaign_id,send_id", b'"",' * (MAX_CHARACTERS // 12)),
        (b"campaign_id,send_id" + b",a" * 500_000, b"c,s"),
        (b"campaign_id,send_id", '"\U0001f600'.encode() * (2 * MAX_CHARACTERS)),
    ],
)
def test_a_row_of_many_cells_is_one_bad_line(head, row):
    """So is one of quotes and of characters of four bytes."""
    _, (bad,) = read_within_bound(listed("-", head + b"\n" + row + b"\n"))
    assert bad.line == 2
