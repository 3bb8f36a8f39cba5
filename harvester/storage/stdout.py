"""Standard output as a sink: rows as plain NDJSON, for a pipe.

A pipe does not report what its reader has processed, so this sink is at-least-once. The next run writes an interrupted
part again.
"""

import asyncio
from typing import BinaryIO

from harvester.errors import SinkClosed, SinkRefused
from harvester.model import Part


class StdoutSink:
    """Writes every part to one stream."""

    def __init__(self, stream: BinaryIO) -> None:
        """Write to ``stream``; parts must be uncompressed."""
        self._stream = stream
        self.place = "-"

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:  # noqa: ARG002 - a pipe has no marker
        """Accept any ledger."""
        return "stdout"

    async def find_ledger_id(self) -> str | None:
        """Return None: a pipe has no marker."""
        return None

    async def list_parts(self, folder: str) -> set[str]:  # noqa: ARG002 - a pipe keeps nothing
        """Return nothing: a pipe keeps no parts."""
        return set()

    async def create(self, part: Part) -> None:
        """Write a part. Raises ``SinkClosed`` if the reader closed the pipe, ``SinkRefused`` for any other error."""
        try:
            await asyncio.to_thread(self._write, part.data)
        except BrokenPipeError:
            raise SinkClosed("the reader of standard output closed the pipe") from None
        except OSError as error:
            raise SinkRefused(f"cannot write to standard output: {error.strerror}") from None

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # unbuffered (PYTHONUNBUFFERED), a write can be short without an error
            view = view[self._stream.write(view) :]
        self._stream.flush()
