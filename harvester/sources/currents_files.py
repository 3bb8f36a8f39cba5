"""Finds the files of Currents in a folder or a bucket, and the type of events that a file's path names."""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from harvester.errors import UsageError
from harvester.model import is_in_object_store
from harvester.sources.kinds import is_list_name
from harvester.sources.regular_files import check_readable, check_regular_file

FileOpener = Callable[[], BinaryIO]
"""Opens a file that can be read and reports its position. It need not support seeking."""

_SUFFIX = ".avro"
_EVENT_TYPE = re.compile(r"(?:^|/)event_type=([^/]+)(?=/)")
_MAX_ENCODINGS = 3
"""How many times a path may be percent-encoded. Tools that copy between buckets encode paths."""


def find_event_type(path: str) -> str | None:
    """Return the event type that a path names, or None. The path may be encoded: ``event_type%3Dusers...``."""
    for _ in range(_MAX_ENCODINGS):
        path = unquote(path)
    types: list[str] = _EVENT_TYPE.findall(path)
    return types[-1] if types else None


def is_send_event(event_type: str) -> bool:
    """Return whether events of a type report sends: its last word is ``Send``, not for example ``CarrierSend``."""
    return event_type.lower().endswith(".send")


def list_currents_files(place: str) -> Iterator[tuple[str, FileOpener]] | None:
    """Return the names and openers of the ``.avro`` files below a folder or bucket, or of a single ``.avro`` file.

    Returns None if ``place`` is something else. Raises ``UsageError`` if there are no files, and ``SinkError`` if a
    bucket cannot be listed.
    """
    if is_in_object_store(place):
        return None if is_list_name(place) else _list_bucket(place)
    path = Path(place)
    try:
        if path.is_dir():
            if next(_walk_folder(path), None) is None:
                raise UsageError(f"{place}: the folder and its subfolders contain no .avro files of Currents")
            return _walk_folder(path)
        if place.endswith(_SUFFIX):
            check_readable(path)
            return iter([(place, _create_opener(path))])
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}; check the name") from None
    return None


def _list_bucket(url: str) -> Iterator[tuple[str, FileOpener]]:
    from harvester.storage.object_store import ObjectStore  # noqa: PLC0415 - imported only if needed, because it is slow to import

    if url.endswith(_SUFFIX):
        folder, _, name = url.rpartition("/")
        return iter([(url, partial(ObjectStore(folder).open_copy, name))])
    store = ObjectStore(url)
    names = (each for each in store.list_names() if each.endswith(_SUFFIX))
    first = next(names, None)
    if first is None:
        raise UsageError(f"{url}: there are no .avro objects of Currents below this URL")
    return ((f"{store.url}/{each}", partial(store.open_copy, each)) for each in chain([first], names))


def _walk_folder(top: Path) -> Iterator[tuple[str, FileOpener]]:
    """Yield the files below a folder in order. Only the names of one folder are in memory.

    Links to folders are not followed. A folder that cannot be listed is yielded as a file that cannot be opened.
    """
    errors: list[OSError] = []
    for folder, subfolders, files in os.walk(top, onerror=errors.append):
        subfolders.sort()
        for file in sorted(files):
            if file.endswith(_SUFFIX):
                path = Path(folder, file)
                yield str(path), _create_opener(path)
    for error in errors:
        yield str(error.filename), _create_opener(Path(error.filename))


def _create_opener(path: Path) -> FileOpener:
    def open_file() -> BinaryIO:
        check_regular_file(path)
        return path.open("rb")

    return open_file
