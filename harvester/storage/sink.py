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

        ``known`` is the id of the dataset that the ledger found here before. With it, a lost marker is restored, even
        if no part is left. Raises ``SinkRefused`` if the dataset belongs to another ledger or the place is not safe to
        use, another ``SinkError`` if the place is unavailable.
        """
        ...

    async def find_ledger_id(self) -> str | None:
        """Return the id of the ledger in the marker; None for a new dataset.

        Returns ``UNKNOWN_LEDGER`` for parts without a marker. Raises ``SinkError``.
        """
        ...

    async def list_parts(self, folder: str) -> set[str]:
        """Return the names of the parts in a folder of the place. Raises ``SinkError``."""
        ...

    async def create(self, part: Part) -> None:
        """Create a part durably if its name is free. An existing part with equal bytes is success.

        Raises ``PartConflict`` if the name exists with different bytes, ``SinkClosed`` if the place accepts no more
        parts, another ``SinkError`` if the place is unavailable.
        """
        ...
