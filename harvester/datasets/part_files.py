"""Where the parts of a dataset are read from, and the check that a part is complete."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import zstandard

from harvester.errors import SinkError
from harvester.model import DATASET, is_part

_CHUNK_BYTES = 64 * 1024


class PartFiles(Protocol):
    """The parts of a place."""

    @property
    def place(self) -> str:
        """The name of the place for messages."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the parts, in the order of their days and batches."""

    @property
    def is_used(self) -> bool:
        """Whether harvester has used the place. If it has no parts, they may have been lost."""

    def open(self, name: str) -> AbstractContextManager[Path]:
        """Return the file of a part. It may exist only inside the context. Raises ``SinkError``."""


class FolderParts:
    """The parts in a folder."""

    def __init__(self, folder: Path) -> None:
        """List the parts of ``folder``."""
        self.place = str(folder)
        self.names = sorted(str(path) for path in (folder / DATASET).glob("*/*") if is_part(path.name))
        self.is_used = (folder / ".harvester").is_dir()

    def open(self, name: str) -> AbstractContextManager[Path]:
        """Return the part itself."""
        return nullcontext(Path(name))


def decompress(part: Path) -> Iterator[bytes]:
    """Yield the decompressed chunks of a part. Raises ``SinkError`` for a damaged part, or bytes after its end.

    DuckDB accepts a truncated part, so each part is decompressed here to its end before DuckDB reads it.
    """
    stream: Any = None
    if part.suffix == ".zst":
        stream = zstandard.ZstdDecompressor().decompressobj()
    elif part.suffix == ".gz":
        stream = zlib.decompressobj(31)
    try:
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk if stream is None else stream.decompress(chunk)
    except (zstandard.ZstdError, zlib.error):
        raise _make_damaged_error(part) from None
    if stream is not None and (not stream.eof or stream.unused_data):
        raise _make_damaged_error(part)


def _make_damaged_error(part: Path) -> SinkError:
    return SinkError(f"the part {part} is damaged; restore it, or move it away")
