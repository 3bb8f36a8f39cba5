"""What a place for parts must be able to do."""

from typing import Protocol

from harvester.model import Part


class Sink(Protocol):
    """A place that keeps parts. Both verbs may be repeated without harm."""

    @property
    def place(self) -> str:
        """Name the place; whoever names the same means the same."""
        ...

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Mark the dataset as this ledger's, or find that mark; gives the dataset's own id.

        ``known`` is the id of the dataset that the ledger found here before: with it, a removed marker is restored.
        Raises ``SinkRefused`` when the dataset belongs to another ledger or the place must not be used, another
        ``SinkError`` when it fails for now.
        """
        ...

    async def owner(self) -> str | None:
        """Return the id of the ledger that the marker names; None for a new dataset, ``NO_OWNER`` without a marker.

        Raises ``SinkError``.
        """
        ...

    async def names(self, folder: str) -> set[str]:
        """List what lies in a folder of the place, each under the name of a part. Raises ``SinkError``."""
        ...

    async def create(self, part: Part) -> None:
        """Make a part durable under its name, if that name is free. Equal bytes there already are success.

        Raises ``PartConflict`` when other bytes have the name, ``SinkClosed`` when no part will be taken any more,
        another ``SinkError`` when the place fails for now.
        """
        ...
