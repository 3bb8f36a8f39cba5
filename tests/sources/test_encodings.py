"""Tests of lists in other encodings, of compressed lists, and of kinds that the name does not tell."""

import bz2
import gzip
import hashlib
import io
from functools import partial

import pytest
import zstandard

from harvester.sources.lists.compression import DamagedFile, open_content
from tests.support.decompression_bombs import compress_zeros
from tests.support.lists import HEADER, read_list, write_parquet

TEXT = f"{HEADER}c,s1,2026-11-20\nc,s2,2026-11-20\n"
PAIRS = [("c", "s1"), ("c", "s2")]
COMPRESS = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".bz2": partial(bz2.compress, compresslevel=1),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_detected(encoding):
    """Excel writes UTF-16. In columns that are not used, any bytes are accepted."""
    mark = {"utf-16": "\ufeff"}.get(encoding, "")
    for name in ("utf-16-le", "utf-16-be") if mark else (encoding,):
        data = (mark + TEXT.replace("2026-11-20\n", '2026-11-20,"ü"\n').replace("sent_at", "sent_at,name")).encode(name)
        pairs, bad, _ = read_list(data)
        assert (list(pairs), bad) == (PAIRS, [])


def test_an_incomplete_character_of_utf_16_is_a_bad_line():
    """The rows before it are read."""
    pairs, (bad,), _ = read_list(TEXT.encode("utf-16") + b"c\0,\0s\0\n\0\x2c")
    assert list(pairs) == [*PAIRS, ("c", "s")]
    assert bad.line == 5


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["a.csv{}", "A.CSV{}", "a{}", "a.csv", "a.data"])
def test_a_compressed_list_is_read_whatever_its_name(tmp_path, name, suffix):
    """The case of a suffix does not matter, and the content decides. A file may have several members."""
    path = tmp_path / name.format(suffix)
    head, rest = TEXT[:40].encode(), TEXT[40:].encode()
    path.write_bytes(COMPRESS[suffix](head) + COMPRESS[suffix](rest))
    pairs, bad, _ = read_list("", name=path)
    assert (list(pairs), bad) == (PAIRS, [])
    assert list(read_list(path.read_bytes())[0]) == PAIRS


def test_the_name_may_claim_a_compression_that_the_content_does_not_have(tmp_path):
    """Some stores decompress a file on download and keep its name."""
    (tmp_path / "a.csv.gz").write_text(TEXT)
    assert list(read_list("", name=tmp_path / "a.csv.gz")[0]) == PAIRS


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", ["end", "middle", "more"])
def test_the_rows_before_damaged_data_are_read(suffix, damage):
    """The rest of the list is one bad line."""
    rows = "".join(f"c,{hashlib.sha1(b'%d' % n).hexdigest()}\n" for n in range(8000))
    data = bytearray(COMPRESS[suffix](f"campaign_id,send_id\n{rows}".encode()))
    if damage == "end":
        del data[-4:]
    elif damage == "middle":
        data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    else:
        data += b"x"
    pairs, bad, _ = read_list(bytes(data))
    assert pairs
    assert "the file cannot be read after line" in bad[-1].problem


def test_a_compressed_file_is_read_up_to_a_limit():
    """A file of one megabyte could expand to a gigabyte."""
    content = open_content(io.BytesIO(compress_zeros(8)), max_bytes=5 << 20)
    with pytest.raises(DamagedFile, match="more than 5242880 bytes after decompression"):
        list(content.stream)


def test_binary_kinds_are_found_by_their_first_bytes(tmp_path):
    """Parquet may have any name, may come from standard input, and may be compressed again."""
    path = write_parquet(tmp_path / "p.parquet", "SELECT 'c' AS campaign_id, 's1' AS send_id")
    for data in (path.read_bytes(), gzip.compress(path.read_bytes())):
        assert list(read_list(data)[0]) == [("c", "s1")]
    for name in ("a.csv", "a.PARQUET", "a"):
        assert list(read_list("", name=path.rename(tmp_path / name))[0]) == [("c", "s1")]
        path = tmp_path / name
