"""A bucket as a sink: a part is created only if its name is free.

The store's own precondition does it, so no lock is needed and nothing is ever deleted or overwritten. A lost
reply, a racing process and a second try all end in a taken name, and what lies there decides.
"""

import hashlib

from harvester.errors import PartConflict, SinkError, SinkRefused
from harvester.model import Part
from harvester.sinks.marker import MARKER, dataset_of, marker_of, owner_of
from harvester.stores import Store, Taken


class BucketSink:
    """Parts below a place in an object store. It must be allowed to create, read and list there, never to delete."""

    def __init__(self, store: Store) -> None:
        """Take the place; nothing is sent before ``attach``."""
        self._store = store
        self.place = store.url

    async def attach(self, ledger_id: str) -> str:
        """Mark the dataset as this ledger's (see the protocol), and prove that the store never overwrites."""
        there = await self._store.has(MARKER)
        marker = (await self._store.read(MARKER) or b"") if there else await self._marked(ledger_id)
        dataset_id = dataset_of(marker, ledger_id=ledger_id, place=self._store.url)
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
        if not await self._store.has(MARKER):
            return None
        return owner_of(await self._store.read(MARKER) or b"", place=self._store.url)[0]

    async def create(self, part: Part) -> None:
        """Create a part (see the protocol)."""
        try:
            await self._store.create(part.name, part.data)
        except Taken:
            await self._must_equal(part)

    async def _marked(self, ledger_id: str) -> bytes:
        marker = marker_of(ledger_id)
        try:
            await self._store.create(MARKER, marker)
        except Taken:  # another process was quicker
            marker = await self._store.read(MARKER) or b""
        return marker

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
