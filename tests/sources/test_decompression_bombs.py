"""Tests of lists that are small on disk but large in memory, or never end. Reading each takes limited memory."""

import bz2
import io
import lzma
import struct
import zlib
from pathlib import Path

import duckdb
import pytest
import xlsxwriter

from harvester.datasets.parquet import MAX_FOOTER_BYTES
from harvester.errors import UsageError
from harvester.model import BadLine, SentPair
from harvester.sources import Input
from harvester.sources.avro.reader import MAX_BLOCK_BYTES
from harvester.sources.currents import CurrentsReader
from harvester.sources.lists.compression import open_content
from harvester.sources.lists.lines import MAX_CHARACTERS
from harvester.sources.lists.listed_files import ListedFile
from tests.support.currents import EMAIL, NOW, OPTIONAL_STRING, SENT, encode_avro_with_header

LIMIT_MIB = 256
"""The memory that reading a list may add to a process, as documented in ``docs/lists.md``."""


def get_memory_mib(field: str) -> float:
    """Return a value of the memory of this process, as the kernel counts it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def read_within_limit(source, limit_mib=LIMIT_MIB) -> tuple[list[SentPair], list[BadLine]]:
    """Read everything, check the peak of memory, and return pairs and bad lines."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = get_memory_mib("VmRSS")
    try:
        found = list(source.read())
    finally:
        assert get_memory_mib("VmHWM") - before < limit_mib
    return [each for each in found if isinstance(each, SentPair)], [each for each in found if isinstance(each, BadLine)]


def create_input(name, data=b"") -> Input:
    """Return the input of one list: a file, or these bytes as standard input."""
    return Input([str(name)], workspaces=["w"], stdin=io.BytesIO(data), now=NOW)


def test_huge_parquet_cells_are_bad_lines_with_a_short_quote(tmp_path):
    """Here a file of less than 10 KB contains 1.6 GB of text. Cells are truncated in the database."""
    path = tmp_path / "bomb.parquet"
    cells = "'c' AS campaign_id, repeat('x', 2000000) AS send_id, repeat('y', 2000000) AS sent_at"
    duckdb.execute(f"COPY (SELECT {cells} FROM range(400)) TO '{path}' (COMPRESSION zstd)")
    assert path.stat().st_size < 10_000
    pairs, bad = read_within_limit(create_input(path))
    assert (pairs, len(bad)) == ([], 400)
    assert all(each.problem == "is longer than 64 characters" and len(each.text) <= 500 for each in bad)


def test_a_parquet_page_above_the_limit_is_a_usage_error(tmp_path):
    """DuckDB must decompress a whole page in memory, so a larger page cannot be read."""
    path = tmp_path / "bomb.parquet"
    cells = "'c' AS campaign_id, repeat(chr(97 + i::INT), 4000000 - i) AS send_id"
    duckdb.execute(f"COPY (SELECT {cells} FROM range(26) t(i)) TO '{path}' (COMPRESSION zstd)")
    with pytest.raises(UsageError, match="more than 128 MB of memory"):
        read_within_limit(create_input(path))


def test_cells_of_other_columns_are_not_read(tmp_path):
    """From a table of message bodies, only the columns of the pairs are read."""
    path = tmp_path / "bodies.parquet"
    cells = "'c' AS campaign_id, 's' || i AS send_id, repeat('x', 4000000 - i) AS body"
    duckdb.execute(f"COPY (SELECT {cells} FROM range(26) t(i)) TO '{path}' (COMPRESSION zstd)")
    assert len(read_within_limit(create_input(path))[0]) == 26


def test_a_parquet_footer_above_the_limit_is_refused_unread(tmp_path):
    """In memory, a footer takes a hundred times its size."""
    path = tmp_path / "wide.parquet"
    footer = b"\x15" * (MAX_FOOTER_BYTES + 1)
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(UsageError, match="its footer has"):
        read_within_limit(create_input(path))


def encode_long(value: int) -> bytes:
    """Return a number in Avro's encoding."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def encode_block(count: int, data: bytes) -> bytes:
    """Return a block for ``encode_avro_with_header``."""
    return encode_long(count) + encode_long(len(data)) + data + b"-" * 16


def compress_deflate(data: bytes) -> bytes:
    """Compress with deflate without a header, as in Avro."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


EVENT = encode_long(1) + encode_long(1) + b"c" + encode_long(1) + encode_long(1) + b"s" + encode_long(SENT)
"""The campaign_id, the send_id and the time of an event."""


def create_reader(extra, data, *, codec="null", count=1, raw=None) -> CurrentsReader:
    """Return a reader of one file of events with one more field of the type ``extra``.

    ``raw`` replaces the block of the file.
    """
    types = {"campaign_id": OPTIONAL_STRING, "send_id": OPTIONAL_STRING, "time": "int", "extra": extra}
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    file = encode_avro_with_header(
        codec, {"type": "record", "name": EMAIL, "fields": fields}, raw or encode_block(count, data)
    )
    return CurrentsReader([ListedFile("a.avro", lambda: io.BytesIO(file))], workspace="w", now=NOW)


@pytest.mark.parametrize(
    ("codec", "compress"),
    [("deflate", compress_deflate), ("bzip2", bz2.compress), ("xz", lambda data: lzma.compress(data, preset=0))],
    ids=["deflate", "bzip2", "xz"],
)
def test_an_avro_block_is_decompressed_only_up_to_the_limit(codec, compress):
    """On disk the block is a thousand times smaller. A block that fits is read."""

    def text(size):
        return EVENT + encode_long(size) + b"x" * size

    pairs, bad = read_within_limit(create_reader("string", compress(text(MAX_BLOCK_BYTES - 100)), codec=codec))
    assert (len(pairs), bad) == (1, [])
    pairs, (refused,) = read_within_limit(create_reader("string", compress(text(MAX_BLOCK_BYTES)), codec=codec))
    assert (pairs, "smaller blocks" in refused.problem) == ([], True)


def test_an_avro_block_that_needs_a_large_dictionary_is_refused():
    """The decoder of xz would allocate the whole dictionary before it returns a byte."""
    data = lzma.compress(EVENT, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}])
    _, (refused,) = read_within_limit(create_reader("null", data, codec="xz"))
    assert "Memory usage limit" in refused.problem


ARRAY = {"type": "array", "items": "boolean"}


def create_record_schema(name, *kinds):
    """Return the schema of a record with fields of these types."""
    fields = [{"name": f"f{at}", "type": kind} for at, kind in enumerate(kinds)]
    return {"type": "record", "name": name, "fields": fields}


NESTED = [
    create_record_schema("R0", "null", "null"),
    *(create_record_schema(f"R{at}", f"R{at - 1}", f"R{at - 1}") for at in range(1, 60)),
]


@pytest.mark.parametrize(
    ("extra", "data", "valid"),
    [
        (ARRAY, encode_long(1 << 40), False),
        (ARRAY, encode_long(1 << 40) + b"\1" * 1000, False),
        (ARRAY, encode_long(-1) + encode_long(-3), False),  # goes back endlessly
        (ARRAY, encode_long(-(1 << 40)) + encode_long(1 << 40), False),
        ({"type": "array", "items": "string"}, encode_long(1 << 40) + encode_long(-1), False),
        ({"type": "array", "items": "null"}, encode_long(1 << 60) + encode_long(0), True),
        (
            {"type": "array", "items": {"type": "fixed", "name": "f", "size": 0}},
            encode_long(1 << 60) + encode_long(0),
            True,
        ),
        ({"type": "map", "values": "null"}, encode_long(1 << 40), False),
        ("string", encode_long(1 << 40), False),
        ("string", encode_long(-5), False),
        (["null", "string"], encode_long(7), False),
        ("long", b"\xff" * 1000, False),
        ({"type": "array", "items": create_record_schema("x", NESTED[0])}, encode_long(1 << 60) + encode_long(0), True),
        ([*NESTED, "null"], encode_long(59), True),  # 2 ** 60 values without bytes
    ],
)
def test_endless_avro_data_is_damaged_data(extra, data, valid):
    """Endless data has counts or lengths beyond the block, steps backwards, or huge arrays of values without bytes."""
    pairs, bad = read_within_limit(create_reader(extra, EVENT + data))
    assert (len(pairs), len(bad)) == ((1, 0) if valid else (0, 1))
    assert all("is incomplete or damaged" in each.problem for each in bad)


@pytest.mark.parametrize(
    "raw",
    [
        encode_block(1 << 40, EVENT),
        encode_block(-1, EVENT),
        encode_long(1) + encode_long(1 << 50) + b"x",
        encode_long(1) + encode_long(-1) + b"x",
        b"\xff" * 1000,
        encode_block(1, EVENT * 2),
    ],
)
def test_avro_blocks_of_a_wrong_size_are_damaged(raw):
    """A block that contains more than its records is damaged too."""
    pairs, bad = read_within_limit(create_reader("null", b"", raw=raw))
    assert (len(pairs), len(bad)) == (1 if raw == encode_block(1, EVENT * 2) else 0, 1)


@pytest.mark.parametrize(
    "header",
    [
        encode_long(1) + encode_long(1 << 45),
        encode_long(1 << 40) + (encode_long(1) + b"a" + encode_long(0)) * 1000,
        encode_long(1)
        + encode_long(11)
        + b"avro.schema"
        + encode_long(400_000)
        + b"[" * 400_000
        + encode_long(0)
        + b"-" * 16,
        encode_long(1) + encode_long(11) + b"avro.schema" + encode_long(2 << 20) + b" " * (2 << 20),
    ],
)
def test_an_avro_header_is_bounded(header):
    """Its sizes are not trusted, and deep nesting does not end the process."""
    file = b"Obj\x01" + header
    _, (bad,) = read_within_limit(
        CurrentsReader([ListedFile("a.avro", lambda: io.BytesIO(file))], workspace="w", now=NOW)
    )
    assert "its header is damaged" in bad.problem


@pytest.mark.parametrize(
    "line",
    [
        b'{"send_id":"s","campaign_id":[' + b"[]," * 340_000 + b"[]]}",
        b'{"send_id":"s","send_id":[' + b'{"a":0},' * 130_000 + b"0]}",
        b"[" * MAX_CHARACTERS,
    ],
)
def test_an_object_of_many_small_values_is_one_bad_line(line):
    """A megabyte of brackets becomes about fifty megabytes of objects."""
    good = b'{"campaign_id":"c","send_id":"s"}\n'
    pairs, bad = read_within_limit(create_input("-", good + line + b"\n" + good))
    assert (len(pairs), len(bad)) == (1, 1)


def test_a_bzip2_list_is_decompressed_in_chunks():
    """Here 40 bytes become a block of 46 MB, and the first read contains two of them."""
    compressor = bz2.BZ2Compressor()
    bomb = b"".join(compressor.compress(b"\n" * (1 << 20)) for _ in range(96)) + compressor.flush()
    assert len(bomb) < 200
    Path("/proc/self/clear_refs").write_text("5")
    before = get_memory_mib("VmRSS")
    assert open_content(io.BytesIO(bomb)).stream.read(10) == b"\n" * 10
    assert get_memory_mib("VmHWM") - before < 32


@pytest.mark.long
def test_wide_titles_of_a_workbook_are_not_stored(tmp_path):
    """Here a file of 300 KB has 80 MB of text above its header."""
    path = tmp_path / "wide.xlsx"
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet()
        for number in range(19):
            sheet.write_row(number, 0, ["\N{GRINNING FACE}" * 256] * 4096)
        sheet.write_row(19, 0, ["campaign_id", "send_id"])
        sheet.write_row(20, 0, ["c", "s"])
    assert len(read_within_limit(create_input(path), LIMIT_MIB / 4)[0]) == 1


@pytest.mark.parametrize(
    ("head", "row"),
    [
        (b"campaign_id,send_id", b"x" + b"," * (MAX_CHARACTERS - 2)),
        (b"campaign_id,send_id", b'"x",' * (MAX_CHARACTERS // 16)),
        (b"campaign_id" + b",a" * 500_000 + b",send_id", b"c,s"),
        (b"campaign_id,send_id", '"\U0001f600'.encode() * (2 * MAX_CHARACTERS)),
    ],
)
def test_a_row_of_many_cells_is_one_bad_line(head, row):
    """A row of many quotes, or of characters with four bytes, is one bad line too."""
    _, (bad,) = read_within_limit(create_input("-", head + b"\n" + row + b"\n"))
    assert bad.line == 2
