"""Reads Avro files of records within limits on memory and time, whatever the files contain.

No library is used. The existing ones build whole blocks and skip unwanted fields without checking the end of the data,
so a file of a few hundred bytes can exhaust memory or never end. (Avro 1.11 specification.)
"""

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from harvester.sources.avro_schema import UnreadableAvro, read_long, record_decoder

MAX_BLOCK_BYTES = 16 << 20
"""The largest block that is read, compressed or not. Writers make blocks of 16 to 64 KB unless told otherwise."""

_MAX_HEADER_BYTES = 1 << 20
_MAX_XZ_MEMORY_BYTES = 80 << 20
_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
_LONGEST_NUMBER_BYTES = 10


class AvroFile:
    """A file of records whose header has been read. ``name`` is its record's, empty where it holds no records."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header. Raises ``UnreadableAvro``."""
        self._file = file
        try:
            meta, self._sync = _header(file)
            self._schema: Any = json.loads(meta["avro.schema"])
        except Exception as error:  # noqa: BLE001 - a damaged header breaks anywhere
            raise UnreadableAvro(f"it is not an Avro file, or its header is damaged ({_text_of(error)})") from None
        codec = meta.get("avro.codec", b"null").decode("ascii", "backslashreplace")
        if codec not in _CODECS:
            raise UnreadableAvro(
                f"its codec {codec[:60]} is not one of {', '.join(_CODECS)}; rewrite the file with deflate"
            )
        self._unpack = _CODECS[codec]
        self.name = str(self._schema.get("name", "")) if isinstance(self._schema, dict) else ""

    def records(self, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Give these fields of each record, as far as it has them. Raises ``UnreadableAvro`` where they break off."""
        decode = record_decoder(self._schema, fields)
        try:
            for count, data in self._blocks():
                at = 0
                for _ in range(count):
                    record, at = decode(data, at)
                    yield record
                _check_end(data, at)
        except UnreadableAvro:
            raise
        except Exception as error:  # noqa: BLE001 - damaged data breaks anywhere
            raise _broken(_text_of(error)) from None

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of records and the bytes of each block."""
        while (count := _read_count(self._file)) is not None:
            size = _read_long(self._file)
            if size > MAX_BLOCK_BYTES:
                raise _too_large(size)
            data = self._unpack(_read(self._file, size))
            if not 0 <= count <= len(data):
                raise _broken(f"a block of {len(data)} bytes with {count} records")
            if _read(self._file, _SYNC_BYTES) != self._sync:
                raise _broken("a block does not end where it should")
            yield count, data


def _check_end(data: bytes, at: int) -> None:
    if at != len(data):
        raise _broken("a block holds more than its records")


def _header(file: BinaryIO) -> tuple[dict[str, bytes], bytes]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("its first bytes are not those of Avro")
    meta: dict[str, bytes] = {}
    left = _MAX_HEADER_BYTES
    while count := _read_long(file):
        if count < 0:  # then the block's size follows
            count = -count
            _read_long(file)
        for _ in range(count):
            texts = []
            for _ in range(2):
                size = _read_long(file)
                left -= size + 1
                if left < 0:
                    raise ValueError(f"a header of more than {_MAX_HEADER_BYTES} bytes")
                texts.append(_read(file, size))
            meta[texts[0].decode("utf-8", "replace")] = texts[1]
    return meta, _read(file, _SYNC_BYTES)


def _read(file: BinaryIO, size: int) -> bytes:
    if size < 0:
        raise _broken("a negative length")
    data = file.read(size)
    if len(data) < size:
        raise _broken("its end is missing")
    return data


def _read_count(file: BinaryIO) -> int | None:
    """Read the count of a block's records; None at the end of the file."""
    first = file.read(1)
    return _read_long(file, first) if first else None


def _read_long(file: BinaryIO, first: bytes = b"") -> int:
    """Read a number, byte by byte."""
    data = first or _read(file, 1)
    while data[-1] >= 0x80 and len(data) <= _LONGEST_NUMBER_BYTES:
        data += _read(file, 1)
    return read_long(data, 0)[0]


def _null(data: bytes) -> bytes:
    return data


def _deflate(data: bytes) -> bytes:
    return _bounded(zlib.decompressobj(-15), data)


def _bzip2(data: bytes) -> bytes:
    return _bounded(bz2.BZ2Decompressor(), data)


def _xz(data: bytes) -> bytes:
    return _bounded(lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY_BYTES), data)


def _bounded(decompressor: Any, data: bytes) -> bytes:
    """Decompress a block, but no further than to the limit."""
    plain: bytes = decompressor.decompress(data, MAX_BLOCK_BYTES + 1)
    if len(plain) > MAX_BLOCK_BYTES:
        raise _too_large(len(plain))
    if not decompressor.eof:
        raise _broken("a block's end is missing")
    return plain


_CODECS: dict[str, Callable[[bytes], bytes]] = {"null": _null, "deflate": _deflate, "bzip2": _bzip2, "xz": _xz}


def _too_large(size: int) -> UnreadableAvro:
    return UnreadableAvro(
        f"one of its blocks has {size} bytes or more, and at most {MAX_BLOCK_BYTES} are read; "
        "rewrite the file with smaller blocks"
    )


def _broken(why: str) -> UnreadableAvro:
    return UnreadableAvro(f"it is incomplete or damaged ({why}); copy it again")


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:200]
