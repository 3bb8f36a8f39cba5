"""Standard output as a sink: rows as plain NDJSON, for a pipe.

A pipe cannot tell what its reader kept, so this sink is at-least-once: a part whose writing was cut off is
written again by the next run.
"""

import asyncio
from typing import BinaryIO

from harvester.errors import SinkClosed, SinkRefused
from harvester.model import Part


class StdoutSink:
    """Writes every part to one stream."""

    def __init__(self, stream: BinaryIO) -> None:
        """Take the stream; parts must come uncompressed."""
        self._stream = stream
        self.place = "-"

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:  # noqa: ARG002 - a pipe bears no mark
        """Accept any ledger."""
        return "stdout"

    async def owner(self) -> str | None:
        """Bear no mark."""
        return None

    async def names(self, folder: str) -> set[str]:  # noqa: ARG002 - a pipe keeps nothing
        """Keep nothing that could be listed."""
        return set()

    async def create(self, part: Part) -> None:
        """Write a part. Raises ``SinkClosed`` when the reader has gone, ``SinkRefused`` where half a part may be."""
        try:
            await asyncio.to_thread(self._write, part.data)
        except BrokenPipeError:
            raise SinkClosed("nobody reads standard output any more") from None
        except OSError as error:
            raise SinkRefused(f"cannot write to standard output: {error.strerror}") from None

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # unbuffered (PYTHONUNBUFFERED), it may take less than asked, without an error
            view = view[self._stream.write(view) :]
        self._stream.flush()
