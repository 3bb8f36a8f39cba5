"""The protocol of a place for parts."""

from typing import Protocol

from harvester.model import Part


class Sink(Protocol):
    """A place that keeps parts. All methods are idempotent."""

    @property
    def place(self) -> str:
        """Return the name of the place; equal names mean the same place."""
        ...

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Mark the dataset as this ledger's, or find that marker. Returns the dataset's id.

        ``known`` is the id of the dataset that the ledger found here before: with it, a removed marker is restored.
        Raises ``SinkRefused`` when the dataset belongs to another ledger or the place must not be used, another
        ``SinkError`` when it fails for now.
        """
        ...

    async def find_owner(self) -> str | None:
        """Return the id of the ledger that the marker names; None for a new dataset, ``NO_OWNER`` without a marker.

        Raises ``SinkError``.
        """
        ...

    async def list_parts(self, folder: str) -> set[str]:
        """List the parts in a folder of the place by name. Raises ``SinkError``."""
        ...

    async def create(self, part: Part) -> None:
        """Create a part durably if its name is free. An existing part with equal bytes is success.

        Raises ``PartConflict`` if the name exists with other bytes, ``SinkClosed`` if the place accepts no more parts,
        another ``SinkError`` if the place fails for now.
        """
        ...
