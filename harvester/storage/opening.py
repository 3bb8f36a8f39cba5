"""Chooses the sink for a place."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harvester.place import PlaceKind, classify_place
from harvester.storage.folder import FolderSink
from harvester.storage.sink import Sink
from harvester.storage.stdout import StdoutSink


def open_sink(place: str, clients: dict[str, Any] | None = None) -> Sink:
    """Return the sink for a place; nothing is read or written yet. Raises ``UsageError``."""
    kind = classify_place(place, "--out", buckets=True, pipe=True)
    if kind is PlaceKind.PIPE:
        return StdoutSink(sys.stdout.buffer)
    if kind is PlaceKind.FILE:
        return FolderSink(Path(place))
    from harvester.storage.bucket import BucketSink  # noqa: PLC0415 - its library is slow to load
    from harvester.storage.object_store import ObjectStore  # noqa: PLC0415 - as above

    return BucketSink(ObjectStore(place, clients))


def share_clients() -> Callable[[str], Sink]:
    """Return ``open_sink`` for many places: those in one bucket share its client."""
    return partial(open_sink, clients={})
