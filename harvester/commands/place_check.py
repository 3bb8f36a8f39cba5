"""Checks that a place takes parts and does not overwrite them.

It creates a temporary folder on the same disk instead of the place. In a bucket, a small object remains, because
harvester does not need the permission to delete.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from harvester.errors import HarvesterError, PartConflict, SinkError, StorageError
from harvester.model import DATASET, Part
from harvester.storage import FolderSink, Sink

_PROBE = ".harvester/probe"
_PROBE_LEDGER = "harvester-doctor"


async def check_place(sink: Sink, ledger_id: str | None, known: str | None) -> str:
    """Check that a part cannot be overwritten, and that the dataset belongs to the ledger, unless that is unknown."""
    marked = await sink.find_ledger_id() is not None and ledger_id is not None
    if marked and ledger_id is not None:
        await sink.attach(ledger_id, known=known)
    if not isinstance(sink, FolderSink):
        await _check_overwriting(sink)
        return f"can be written, and does not overwrite existing objects; the test object {_PROBE} remains"
    if marked:
        await _check_overwriting(sink)
        (sink.folder / _PROBE).unlink()
    else:
        with temporary_folder_at(sink.folder) as folder:
            draft = FolderSink(folder)
            await draft.attach(ledger_id or _PROBE_LEDGER)
            await _check_overwriting(draft)
    return "can be written, and does not overwrite existing files"


async def _check_overwriting(sink: Sink) -> None:
    """Create a small object twice, with different bytes: a place that allows this would lose parts."""
    first, second = (
        Part(DATASET, _PROBE, sha256(data).hexdigest(), len(data), 0, data)
        for data in (b"harvester\n", b"overwritten\n")
    )
    await sink.create(first)
    try:
        await sink.create(second)
    except PartConflict:
        return
    raise SinkError("the place overwrites existing objects, so parts could be lost; choose another place")


@contextmanager
def temporary_folder_at(place: Path) -> Iterator[Path]:
    """Create a temporary folder where ``place`` is or would be created; errors name the place instead."""
    try:
        there = next(each for each in (place, *place.parents) if each.is_symlink() or each.exists())
        trial = tempfile.TemporaryDirectory(prefix=".harvester-doctor-", dir=there)
    except OSError as error:
        raise StorageError(f"cannot write to {place}: {error.strerror}; give this user write access") from None
    with trial as folder:
        try:
            yield Path(folder)
        except HarvesterError as error:
            raise type(error)(str(error).replace(folder, str(place))) from None
