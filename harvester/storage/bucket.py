"""A bucket as a sink: a part is created only if its name is free.

The store's own precondition does it, so no lock is needed and nothing is ever deleted or overwritten. A lost
reply, a racing process and a second try all end in a taken name, and what lies there decides.
"""

import asyncio
import hashlib

from harvester.errors import PartConflict, SinkError, SinkRefused
from harvester.model import DATASET, Part, is_part
from harvester.storage.marker import MARKER, find_owner, mark
from harvester.storage.object_store import Store, Taken


class BucketSink:
    """Parts below a place in an object store. It must be allowed to create, read and list there, never to delete."""

    def __init__(self, store: Store) -> None:
        """Take the place; nothing is sent before ``attach``."""
        self._store = store
        self.place = store.url

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Mark the dataset as this ledger's (see the protocol), and prove that the store never overwrites."""
        marker, dataset_id = await mark(self, ledger_id, known=known)
        try:
            await self._store.create(MARKER, marker)  # the same bytes: a store that takes them has lost nothing
        except Taken:
            return dataset_id
        raise SinkRefused(
            f"{self._store.url} overwrites what is there (it ignores If-None-Match), so parts could be lost; "
            "choose another store, or a newer version of this one"
        )

    async def owner(self) -> str | None:
        """Name the ledger whose mark is there (see the protocol)."""
        return await find_owner(self)

    async def names(self, folder: str) -> set[str]:
        """List a folder (see the protocol)."""
        return await asyncio.to_thread(lambda: set(self._store.names(folder)))

    async def create(self, part: Part) -> None:
        """Create a part (see the protocol)."""
        try:
            await self._store.create(part.name, part.data)
        except Taken:
            await self._must_equal(part)

    async def read_marker(self, name: str) -> bytes | None:
        """Read a marker, or find that there is none."""
        return (await self._store.read(name) or b"") if await self._store.has(name) else None

    async def create_marker(self, name: str, data: bytes) -> bytes:
        """Create a marker; another process may be quicker."""
        try:
            await self._store.create(name, data)
        except Taken:
            return await self._store.read(name) or b""
        return data

    async def has_parts(self) -> bool:
        """Tell whether any part is in the dataset."""
        return await asyncio.to_thread(lambda: any(map(is_part, self._store.names(DATASET))))

    async def _must_equal(self, part: Part) -> None:
        there = await self._store.read(part.name)
        if there is None:
            raise SinkError(
                f"{self._store.url} says that {part.name} is taken, but has no such object; it is tried again"
            )
        if hashlib.sha256(there).hexdigest() != part.sha256:
            raise PartConflict(
                f"{self._store.url}/{part.name} exists with other bytes; "
                "it was left as it is, move it away if it is not ours"
            )
