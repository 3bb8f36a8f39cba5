"""Avro files of records, read within a bound on memory and time whatever they say of themselves. The door to fastavro.

The container is read here: each block is decompressed up to a limit, and handed to the library as if the file had never
been compressed. Fields that nobody asked for are skipped without being built.
"""

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from harvester.sources.avro_schema import UnreadableAvro, check

MAX_BLOCK_BYTES = 32 << 20
"""The largest block that is read, compressed or not. Writers make blocks of 16 to 64 KB unless told otherwise."""

_MAX_HEADER_BYTES = 1 << 20
_MAX_XZ_MEMORY_BYTES = 80 << 20
_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16


class AvroFile:
    """A file of records whose header has been read. ``name`` is its record's, empty where it holds no records."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header. Raises ``UnreadableAvro``."""
        self._file = file
        try:
            meta, self._sync = _header(file)
            self._schema_bytes = meta["avro.schema"]
            self._schema: Any = json.loads(self._schema_bytes)
        except Exception as error:  # noqa: BLE001 - a damaged header breaks anywhere
            raise UnreadableAvro(f"it is no Avro file, or its header is damaged ({_text_of(error)})") from None
        codec = meta.get("avro.codec", b"null").decode("ascii", "backslashreplace")
        if codec not in _CODECS:
            raise UnreadableAvro(
                f"its codec {codec[:60]} is none of {', '.join(_CODECS)}; have it rewritten with deflate"
            )
        self._unpack = _CODECS[codec]
        self.name = str(self._schema.get("name", "")) if isinstance(self._schema, dict) else ""

    def records(self, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Give these fields of each record, as far as it has them. Raises ``UnreadableAvro`` where they break off."""
        import fastavro  # noqa: PLC0415 - few runs read Avro

        check(self._schema, fields)
        kept = [field for field in self._schema["fields"] if field["name"] in fields]
        wanted = {key: self._schema[key] for key in ("type", "name", "namespace") if key in self._schema}
        try:
            yield from fastavro.reader(_Stream(self._plain()), wanted | {"fields": kept})  # type: ignore[arg-type, misc]
        except UnreadableAvro:
            raise
        except Exception as error:  # noqa: BLE001 - damaged data breaks the library anywhere
            raise _broken(_text_of(error)) from None

    def _plain(self) -> Iterator[bytes]:
        """Give the file as it were without compression: its header, and each block."""
        meta = {b"avro.codec": b"null", b"avro.schema": self._schema_bytes}
        texts = b"".join(_long(len(each)) + each for pair in meta.items() for each in pair)
        yield _MAGIC + _long(len(meta)) + texts + _long(0) + self._sync
        while (count := _read_count(self._file)) is not None:
            size = _read_long(self._file)
            if size > MAX_BLOCK_BYTES:
                raise _too_large(size)
            data = self._unpack(_read(self._file, size))
            if not 0 <= count <= len(data):
                raise _broken(f"a block of {len(data)} bytes with {count} records")
            if _read(self._file, _SYNC_BYTES) != self._sync:
                raise _broken("a block does not end where it should")
            yield _long(count)
            yield _long(len(data))
            yield data
            yield self._sync


class _Stream:
    """Reads pieces as a file. A read that asks for a whole piece gets it uncopied."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest = self._rest + piece if self._rest else piece
        if size == len(self._rest):
            given, self._rest = self._rest, b""
        else:
            given, self._rest = self._rest[:size], self._rest[size:]
        return given


def _header(file: BinaryIO) -> tuple[dict[str, bytes], bytes]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin like one")
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
    """Read a number as Avro writes it: seven bits a byte, lowest first, the sign in the last bit."""
    value = shift = 0
    while shift < 64:
        (byte,) = first or _read(file, 1)
        first = b""
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
    raise _broken("a number that is too long")


def _long(value: int) -> bytes:
    """Write a number that is not negative as Avro does."""
    value <<= 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


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
        f"a block of it has {size} bytes or more, and at most {MAX_BLOCK_BYTES} are read; "
        "have it rewritten with smaller blocks"
    )


def _broken(why: str) -> UnreadableAvro:
    return UnreadableAvro(f"it breaks off or is damaged ({why}); fetch it again")


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:200]
