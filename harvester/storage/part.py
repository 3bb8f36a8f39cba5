"""Turns rows into a part: NDJSON, compressed as it arrives.

The writer keeps compressed bytes and at most a chunk of rows. A batch of 1,000 responses has about 25 MB of rows, and
its part about 2 MB. Compression runs on a separate thread, in the order of the rows.
"""

import asyncio
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import zstandard

from harvester.errors import PartConflict
from harvester.model import Batch, Part

_CHUNK_BYTES = 1024 * 1024
"""The size of a chunk for the thread. Each chunk waits for the interpreter's lock, so chunks are large."""


class Compression(StrEnum):
    """How parts are compressed."""

    ZSTD = "zstd"
    GZIP = "gzip"
    NONE = "none"


class _NoCompressor:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


_SUFFIXES = {Compression.ZSTD: ".zst", Compression.GZIP: ".gz", Compression.NONE: ""}
_thread = ThreadPoolExecutor(1, thread_name_prefix="compress")


def _create_compressor(compression: Compression) -> Any:
    match compression:
        case Compression.ZSTD:
            return zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
        case Compression.GZIP:
            return zlib.compressobj(6, zlib.DEFLATED, 31)  # 31: write a gzip header, with a time of 0
        case Compression.NONE:
            return _NoCompressor()


class PartWriter:
    """Collects the rows of a batch into its part of one dataset."""

    def __init__(self, batch: Batch, dataset: str, compression: Compression, destination: str) -> None:
        """Begin the part of ``batch`` for the dataset with the id ``destination``.

        The part's name contains the day on which the batch was opened and the batch's id, but no user data.
        """
        self.size_bytes = 0
        """The compressed bytes so far."""
        self._destination = destination
        self._dataset = dataset
        day = datetime.fromtimestamp(batch.opened_at, UTC).date().isoformat()
        self._name = f"{dataset}/captured_date={day}/{batch.id}.ndjson{_SUFFIXES[compression]}"
        self._compressor = _create_compressor(compression)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._compressed: list[bytes] = []
        self._row_count = 0

    def append(self, rows: bytes, row_count: int) -> None:
        """Add the rows of one capture, as complete lines."""
        self._waiting.append(rows)
        self._waiting_bytes += len(rows)
        self._row_count += row_count

    async def compress_if_full(self) -> None:
        """Compress the rows that wait, if they fill a chunk."""
        if self._waiting_bytes >= _CHUNK_BYTES:
            await self._compress()

    async def finish(self) -> Part | None:
        """Return the part; None if there was no row."""
        if self._row_count == 0:
            return None
        await self._compress()
        loop = asyncio.get_running_loop()
        data, digest = await loop.run_in_executor(_thread, self._finish)
        return Part(self._dataset, self._name, digest, len(data), self._row_count, data, self._destination)

    async def _compress(self) -> None:
        chunk, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        loop = asyncio.get_running_loop()
        # The thread works in the order of submission, so rows keep their order, and ``finish`` has all of them.
        await loop.run_in_executor(_thread, self._compress_chunk, chunk)

    def _compress_chunk(self, chunk: bytes) -> None:
        compressed = self._compressor.compress(chunk)
        self._compressed.append(compressed)
        self.size_bytes += len(compressed)

    def _finish(self) -> tuple[bytes, str]:
        data = b"".join(self._compressed) + self._compressor.flush()
        self._compressor = None  # it has 0.9 MB, and there may be a part for each of hundreds of places
        return data, hashlib.sha256(data).hexdigest()


def check_sealed(part: Part) -> None:
    """Raise ``PartConflict`` unless the bytes are those that were sealed."""
    if hashlib.sha256(part.data).hexdigest() != part.sha256:
        raise PartConflict(
            f"the bytes of {part.name} in the ledger are damaged and were not stored; check the disk, "
            "and capture its pairs again into a new place"
        )
