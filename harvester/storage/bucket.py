"""A bucket as a sink: a part is created only if its name is free.

The store checks the precondition, so harvester needs no lock, and never deletes or overwrites. After a lost response,
a race or a retry, the name already exists. Equal bytes are then a success, different bytes a conflict.
"""

import asyncio
import hashlib

from harvester.errors import PartConflict, SinkError, SinkRefused
from harvester.model import DATASET, Part, is_part
from harvester.storage.marker import MARKER, find_ledger_id, mark_dataset
from harvester.storage.object_store import NameTaken, ObjectStore


class BucketSink:
    """Creates parts in a bucket, below a prefix. It needs permission to create, read and list there, not to delete."""

    def __init__(self, store: ObjectStore) -> None:
        """Use ``store``; nothing is sent before ``attach``."""
        self._store = store
        self.place = store.url

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Mark the dataset as this ledger's (see the protocol), and verify that the store never overwrites."""
        marker, dataset_id = await mark_dataset(self, ledger_id, known=known)
        try:
            await self._store.create(MARKER, marker)  # if the store overwrites it, the bytes stay the same
        except NameTaken:
            return dataset_id
        raise SinkRefused(
            f"{self._store.url} overwrites objects (it ignores If-None-Match), so parts could be lost; "
            "choose another store, or a newer version of this one"
        )

    async def find_ledger_id(self) -> str | None:
        """Return the id of the ledger in the marker (see the protocol)."""
        return await find_ledger_id(self)

    async def list_parts(self, folder: str) -> set[str]:
        """List a folder (see the protocol)."""
        return await asyncio.to_thread(lambda: set(self._store.list_names(folder)))

    async def create(self, part: Part) -> None:
        """Create a part (see the protocol)."""
        try:
            await self._store.create(part.name, part.data)
        except NameTaken:
            await self._verify_equal(part)

    async def read_marker(self, name: str) -> bytes | None:
        """Read a marker; None if there is none."""
        return (await self._store.read(name) or b"") if await self._store.exists(name) else None

    async def create_marker(self, name: str, data: bytes) -> bytes:
        """Create a marker, or return the one that another process created first."""
        try:
            await self._store.create(name, data)
        except NameTaken:
            return await self._store.read(name) or b""
        return data

    async def has_parts(self) -> bool:
        """Return whether the dataset has a part."""
        # Not in a thread: with hundreds of places, most would wait for a free one, and seem not to respond.
        return await self._store.contains(DATASET, is_part)

    async def _verify_equal(self, part: Part) -> None:
        existing = await self._store.read(part.name)
        if existing is None:
            raise SinkError(
                f"{self._store.url} reports that {part.name} exists, but does not return it; harvester will retry"
            )
        if hashlib.sha256(existing).hexdigest() != part.sha256:
            raise PartConflict(
                f"{self._store.url}/{part.name} exists with different bytes; "
                "it was not changed. Move it away if harvester did not write it"
            )
