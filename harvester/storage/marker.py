"""The marker: a small object beside a dataset that names the dataset and its ledger.

The ledger is the only copy of the plan. With an empty ledger, or the ledger of another dataset, harvester would request
and write everything again. So it refuses both, and also parts without a marker.

The marker is outside of the dataset, because readers load whole folders and prefixes. Older versions put it among the
parts. A marker there remains valid and is not moved, because older versions look for it there.
"""

import secrets
from typing import Protocol

import orjson

from harvester.errors import SinkRefused
from harvester.model import DATASET

MARKER = f".harvester/{DATASET}.json"
OLD_MARKER = f"{DATASET}/_ledger.json"
UNKNOWN_LEDGER = ""
"""Returned instead of a ledger's id if there are parts but no marker."""

_NEXT_STEP = "name that ledger with --state. If it is lost, run harvester ledger rebuild, or choose a new place with -o"


class MarkedSink(Protocol):
    """The marker methods of a sink."""

    @property
    def place(self) -> str:
        """Return the name of the place."""
        ...

    async def read_marker(self, name: str) -> bytes | None:
        """Read a marker; None if there is none. Raises ``SinkError``."""
        ...

    async def create_marker(self, name: str, data: bytes) -> bytes:
        """Create a marker durably if its name is free; return the marker that now exists. Raises ``SinkError``."""
        ...

    async def has_parts(self) -> bool:
        """Return whether the dataset has a part. Raises ``SinkError``."""
        ...


async def find_ledger_id(sink: MarkedSink) -> str | None:
    """Return the id of the dataset's ledger, ``UNKNOWN_LEDGER`` for parts without a marker, None for a new dataset.

    Raises ``SinkRefused`` for a damaged marker.
    """
    for name in (MARKER, OLD_MARKER):
        marker = await sink.read_marker(name)
        if marker is not None:
            return _parse(marker, f"{sink.place}/{name}")[0]
    return UNKNOWN_LEDGER if await sink.has_parts() else None


async def mark_dataset(sink: MarkedSink, ledger_id: str, *, known: str | None) -> tuple[bytes, str]:
    """Mark the dataset as this ledger's, or find its marker; returns the marker and the dataset's id.

    ``known`` is the id of the dataset that the ledger found here before. With it, a lost marker is restored.
    Raises ``SinkRefused`` for another ledger's dataset, a damaged marker, and parts without one.
    """
    marker = await sink.read_marker(MARKER)
    if marker is None:
        marker = await _recover_marker(sink, ledger_id, known)
    dataset_id = _check_ledger(sink, marker, MARKER, ledger_id)
    # A process of an older version creates and finds only the old marker.
    old = await sink.read_marker(OLD_MARKER)
    if old is not None:
        _check_ledger(sink, old, OLD_MARKER, ledger_id)
    return marker, dataset_id


async def _recover_marker(sink: MarkedSink, ledger_id: str, known: str | None) -> bytes:
    """Copy an old marker, restore that of the known dataset, or create one for a new dataset.

    A known dataset keeps its id even if all of its parts are gone: other parts are sealed for this id.
    """
    old = await sink.read_marker(OLD_MARKER)
    if old is not None:
        _check_ledger(sink, old, OLD_MARKER, ledger_id)
        return await sink.create_marker(MARKER, old)
    if known is None and await sink.has_parts():
        marker = await sink.read_marker(MARKER)  # another process may have created it in the meantime
        if marker is not None:
            return marker
        raise SinkRefused(
            f"{sink.place} contains parts, but {MARKER}, which names their ledger, is missing; {_NEXT_STEP}"
        )
    return await sink.create_marker(MARKER, make_marker(ledger_id, known))


def make_marker(ledger_id: str, dataset_id: str | None = None) -> bytes:
    """Encode the marker of a dataset, by default of a new one."""
    return orjson.dumps({"dataset": dataset_id or new_dataset_id(), "ledger": ledger_id}) + b"\n"


def new_dataset_id() -> str:
    """Return an id for a new dataset."""
    return secrets.token_hex(16)


def _check_ledger(sink: MarkedSink, marker: bytes, name: str, ledger_id: str) -> str:
    """Return the dataset's id. Raises ``SinkRefused`` for a damaged marker and for that of another ledger."""
    found, dataset_id = _parse(marker, f"{sink.place}/{name}")
    if found != ledger_id:
        raise SinkRefused(f"{sink.place} was captured with another ledger (its id is {found}); {_NEXT_STEP}")
    return dataset_id


def _parse(marker: bytes, where: str) -> tuple[str, str]:
    """Return the ledger's id and the dataset's. Raises ``SinkRefused`` for a damaged marker."""
    try:
        fields = orjson.loads(marker)
        return str(fields["ledger"]), str(fields["dataset"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SinkRefused(f"{where} is damaged; restore it, or choose a new place with -o") from None
