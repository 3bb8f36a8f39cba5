"""Reads files that may be compressed, in bounded memory. The first bytes decide, because names may be wrong.

Some stores decompress a file on download, and then its name still ends in ``.gz``.
"""

import bz2
import io
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import zstandard

from harvester.sources.lists.kinds import HEAD_BYTES

MAX_DECOMPRESSED_BYTES = 4 << 30
"""A compressed file may have this size after decompression. The rest of a larger one is not read."""

_CHUNK_BYTES = 65_536
_OUTPUT_BYTES = 4 << 20
_MAX_ZSTD_WINDOW_BYTES = 1 << 27


class DamagedFile(Exception):  # noqa: N818 - it never leaves the sources
    """The rest of a file cannot be read; the text says why."""


class _Compression(NamedTuple):
    """A compression: its name, first bytes and decompressor, and the input that is decompressed at once.

    For gzip and zstd, this input becomes at most ``_OUTPUT_BYTES``.
    """

    name: str
    magic: bytes
    create: Callable[[], Any]
    input_bytes: int


def _create_zstd_decompressor() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW_BYTES).decompressobj()


_COMPRESSIONS = (
    _Compression("gzip", b"\x1f\x8b", lambda: zlib.decompressobj(31), 4096),
    _Compression("zstd", b"\x28\xb5\x2f\xfd", _create_zstd_decompressor, 128),
    _Compression("bzip2", b"BZh", bz2.BZ2Decompressor, 256),
)


class Content(NamedTuple):
    """The decompressed content of a file: a stream, its first bytes, and the name of its compression if it has one."""

    stream: BinaryIO
    head: bytes
    compression: str | None


def open_content(file: BinaryIO, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> Content:
    """Return the decompressed content of a file. Reading the stream raises ``DamagedFile`` for damaged data."""
    head, chunks = _peek(iter(lambda: file.read(_CHUNK_BYTES), b""))
    compression = next((each for each in _COMPRESSIONS if head.startswith(each.magic)), None)
    if compression is not None:
        head, chunks = _peek(_limit_size(_decompress(chunks, compression), max_bytes))
    return Content(io.BufferedReader(_ChunkStream(chunks)), head, compression and compression.name)


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes of chunks, and all chunks. An error is raised once the chunks before it are read."""
    begin, rest = b"", chunks
    try:
        while len(begin) < HEAD_BYTES and (chunk := next(chunks, b"")):
            begin += chunk
    except DamagedFile as error:
        rest = _raise_later(error)
    return begin[:HEAD_BYTES], chain([begin], rest)


def _raise_later(error: DamagedFile) -> Iterator[bytes]:
    raise error
    yield b""


def _decompress(chunks: Iterator[bytes], compression: _Compression) -> Iterator[bytes]:
    """Yield the decompressed data of all frames or members. Raises ``DamagedFile``."""
    stream = None
    for chunk in chunks:
        rest = chunk
        while rest:
            if stream is None:
                if not rest.strip(b"\0"):  # the padding of a tape or a block device
                    break
                stream = compression.create()
            try:
                yield from filter(None, _decompress_piece(rest[: compression.input_bytes], stream))
            except (zlib.error, zstandard.ZstdError, OSError, ValueError) as error:
                raise DamagedFile(f"its {compression.name} data is damaged: {error}") from None
            rest = rest[compression.input_bytes :]
            if stream.eof:
                rest, stream = stream.unused_data + rest, None
    if stream is not None:
        raise DamagedFile(f"the end of its {compression.name} data is missing; copy it again")


def _decompress_piece(data: bytes, stream: Any) -> Iterator[bytes]:
    """Yield the decompressed data of a piece, at most ``_OUTPUT_BYTES`` at a time."""
    if isinstance(stream, bz2.BZ2Decompressor):  # 40 bytes can become a block of 46 MB
        yield stream.decompress(data, _OUTPUT_BYTES)
        while not (stream.eof or stream.needs_input):
            yield stream.decompress(b"", _OUTPUT_BYTES)
    else:
        yield stream.decompress(data)


def _limit_size(chunks: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise DamagedFile(f"it has more than {max_bytes} bytes after decompression; split it")
        yield chunk


class _ChunkStream(io.RawIOBase):
    """A stream of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer)
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
