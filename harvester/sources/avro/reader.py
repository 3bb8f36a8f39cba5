"""Reads untrusted Avro files of records with limits on memory and time.

It implements the Avro 1.11 specification without a library. Existing libraries build whole blocks, and skip unwanted
fields without checking the end of the data. So a file of a few hundred bytes can exhaust memory or never end.
"""

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from harvester.sources.avro.binary import UnreadableAvro, read_long
from harvester.sources.avro.decoder import compile_record_decoder

MAX_BLOCK_BYTES = 16 << 20
"""The largest block that is read, before and after decompression. The defaults of writers are 16 to 64 KB."""

_MAX_HEADER_BYTES = 1 << 20
_MAX_XZ_MEMORY_BYTES = 80 << 20
_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
_MAX_NUMBER_BYTES = 10


class AvroFile:
    """An Avro file whose header has been read.

    ``record_name`` and ``field_names`` are empty if the schema is not a record.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header. Raises ``UnreadableAvro``."""
        self._file = file
        try:
            metadata, self._sync = _read_header(file)
            self._schema: Any = json.loads(metadata["avro.schema"])
        except Exception as error:  # noqa: BLE001 - a damaged header can cause any error
            raise UnreadableAvro(f"it is not an Avro file, or its header is damaged ({_format_error(error)})") from None
        codec = metadata.get("avro.codec", b"null").decode("ascii", "backslashreplace")
        if codec not in _CODECS:
            raise UnreadableAvro(
                f"its codec {codec[:60]} is not one of {', '.join(_CODECS)}; rewrite the file with deflate"
            )
        self._decompress = _CODECS[codec]
        schema = self._schema if isinstance(self._schema, dict) else {}
        self.record_name = str(schema.get("name", ""))
        fields = schema.get("fields")
        records = fields if isinstance(fields, list) else []
        self.field_names = [str(each.get("name")) for each in records if isinstance(each, dict)]

    def read_records(self, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield these fields of each record, if it has them. Raises ``UnreadableAvro`` if the data is damaged."""
        decode = compile_record_decoder(self._schema, fields)
        try:
            for count, data in self._read_blocks():
                at = 0
                for _ in range(count):
                    record, at = decode(data, at)
                    yield record
                _check_end(data, at)
        except UnreadableAvro:
            raise
        except Exception as error:  # noqa: BLE001 - damaged data can cause any error
            raise _create_damage_error(_format_error(error)) from None

    def _read_blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of records and the bytes of each block."""
        while (count := _read_count(self._file)) is not None:
            size = _read_long(self._file)
            if size > MAX_BLOCK_BYTES:
                raise _create_size_error(size)
            data = self._decompress(_read_bytes(self._file, size))
            if not 0 <= count <= len(data):
                raise _create_damage_error(f"a block of {len(data)} bytes claims {count} records")
            if _read_bytes(self._file, _SYNC_BYTES) != self._sync:
                raise _create_damage_error("the marker after a block is wrong")
            yield count, data


def _check_end(data: bytes, at: int) -> None:
    if at != len(data):
        raise _create_damage_error("a block contains more than its records")


def _read_header(file: BinaryIO) -> tuple[dict[str, bytes], bytes]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin with the bytes of an Avro file")
    metadata: dict[str, bytes] = {}
    bytes_left = _MAX_HEADER_BYTES
    while count := _read_long(file):
        if count < 0:  # the size of the block follows
            count = -count
            _read_long(file)
        for _ in range(count):
            texts = []
            for _ in range(2):
                size = _read_long(file)
                bytes_left -= size + 1
                if bytes_left < 0:
                    raise ValueError(f"a header of more than {_MAX_HEADER_BYTES} bytes")
                texts.append(_read_bytes(file, size))
            metadata[texts[0].decode("utf-8", "replace")] = texts[1]
    return metadata, _read_bytes(file, _SYNC_BYTES)


def _read_bytes(file: BinaryIO, size: int) -> bytes:
    if size < 0:
        raise _create_damage_error("a negative length")
    data = file.read(size)
    if len(data) < size:
        raise _create_damage_error("its end is missing")
    return data


def _read_count(file: BinaryIO) -> int | None:
    """Read the number of records in a block, or return None at the end of the file."""
    first = file.read(1)
    return _read_long(file, first) if first else None


def _read_long(file: BinaryIO, first: bytes = b"") -> int:
    """Read a number. ``first`` is its first byte if it was already read."""
    data = first or _read_bytes(file, 1)
    while data[-1] >= 0x80 and len(data) <= _MAX_NUMBER_BYTES:
        data += _read_bytes(file, 1)
    return read_long(data, 0)[0]


def _decompress_null(data: bytes) -> bytes:
    return data


def _decompress_deflate(data: bytes) -> bytes:
    return _decompress_bounded(zlib.decompressobj(-15), data)


def _decompress_bzip2(data: bytes) -> bytes:
    return _decompress_bounded(bz2.BZ2Decompressor(), data)


def _decompress_xz(data: bytes) -> bytes:
    return _decompress_bounded(lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY_BYTES), data)


def _decompress_bounded(decompressor: Any, data: bytes) -> bytes:
    """Decompress a block. Raises ``UnreadableAvro`` if it is larger than the limit or incomplete."""
    decompressed: bytes = decompressor.decompress(data, MAX_BLOCK_BYTES + 1)
    if len(decompressed) > MAX_BLOCK_BYTES:
        raise _create_size_error(len(decompressed))
    if not decompressor.eof:
        raise _create_damage_error("a block's end is missing")
    return decompressed


_CODECS: dict[str, Callable[[bytes], bytes]] = {
    "null": _decompress_null,
    "deflate": _decompress_deflate,
    "bzip2": _decompress_bzip2,
    "xz": _decompress_xz,
}


def _create_size_error(size: int) -> UnreadableAvro:
    return UnreadableAvro(
        f"one of its blocks has {size} bytes or more; the limit is {MAX_BLOCK_BYTES}; rewrite the file with smaller "
        "blocks"
    )


def _create_damage_error(detail: str) -> UnreadableAvro:
    return UnreadableAvro(f"it is incomplete or damaged ({detail}); copy it again")


def _format_error(error: Exception) -> str:
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
    return text.strip()[:200]
