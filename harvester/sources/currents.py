"""Sends from Braze Currents: Avro files of events, in a folder or one by one.

What counts (documentation of Currents' events and of its delivery):

- Each file holds events of one type, which its path names: ``.../event_type=users.messages.email.Send/date=.../``.
  Types that end in ``.Send`` tell of sends; others are skipped, unopened. Where the path names none, the name of the
  record in the file's own schema does (``dataexport.S3.inner.users.messages.email.Send``).
- ``campaign_id`` and ``send_id`` may be null, and ``time`` is in Unix seconds. An event without both ids is skipped
  and counted by cause: messages of a canvas, and campaigns that were sent without a send id.
- Fields come and go with the versions of the schema, so each is looked up by its name in each record.
- Events come at least once, one for each user, so a send is told by its many events: it is given once.

A file that breaks off keeps what stood before the break. Avro has no checksums: a file that was cut between two of
its blocks cannot be told from a whole one.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, BadLine, Enqueued, Pair, in_store
from harvester.sources.avro import AvroFile
from harvester.sources.avro_schema import UnreadableAvro
from harvester.sources.fields import OF_LISTS, REQUIRED, Unusable, check_time, id_in
from harvester.sources.send_times import SendTimes, send_time
from harvester.sources.special_files import check_plain, open_once

Opener = Callable[[], BinaryIO]
"""Opens a file's bytes; what it gives can be read and tells its position, but need not seek."""

_EVENT_TYPE = re.compile(r"(?:^|/)event_type=([^/]+)(?=/)")
_FIELDS = (*REQUIRED, "time", "canvas_id")
_ENCODED_AT_MOST = 3  # times over, by tools that copy from bucket to bucket
OTHER_TYPES = "files of other event types"
CANVAS = "events of a canvas"


class Currents:
    """The sends that files of events tell of.

    ``files`` and ``events`` count what was read, ``skipped`` what was passed over, by cause. ``broken`` tells whether
    a file could not be read to its end.
    """

    def __init__(self, files: Iterable[tuple[str, Opener]], *, workspace: str, now: float) -> None:
        """Take named files of one workspace; none is opened before it is read."""
        self._listed = files
        self._workspace = workspace
        self._now = now
        self.broken = False
        self.files = 0
        self.events = 0
        self.skipped: Counter[str] = Counter()

    def read(self) -> Iterator[Enqueued | BadLine | None]:
        """Give bad lines as they are met, then each send once. After each file comes a None.

        A bad line's number is that of the event in its file; for a file that breaks off, that of the last readable
        one. Raises ``StorageError`` when the disk cannot hold the sends for a while.
        """
        with SendTimes() as times:
            for name, opener in self._listed:
                yield from self._file(name, opener, times)
                yield None
            for pair, first, last in times.each():
                yield Enqueued(pair, send_time(first, last, now=self._now))

    @property
    def only_other_types(self) -> bool:
        """Whether all that was read is of types that tell of no send: this is the wrong place."""
        return bool(self.skipped[OTHER_TYPES]) and not self.files and not self.broken

    def _file(self, name: str, opener: Opener, times: SendTimes) -> Iterator[BadLine]:
        named = _EVENT_TYPE.findall(_decoded(name))
        if named and not _tells_of_sends(named[-1]):
            self.skipped[OTHER_TYPES] += 1
            return
        number = 0
        try:
            with _opened(opener) as file:
                avro = AvroFile(file)
                if not named and not _tells_of_sends(avro.name):
                    self.skipped[OTHER_TYPES] += 1
                    return
                self.files += 1
                for number, record in enumerate(avro.records(_FIELDS), 1):
                    self.events += 1
                    try:
                        self._meet(record, times)
                    except Unusable as error:
                        yield BadLine(name, number, error.field, error.problem, _shown(record))
        except UnreadableAvro as error:
            self.broken = True
            where = f"after event {number}" if number else "at all"
            yield BadLine(name, number, "", f"cannot be read {where}: {error}", "")

    def _meet(self, record: dict[str, Any], times: SendTimes) -> None:
        """Take one event. Raises ``Unusable``."""
        for field in REQUIRED:
            if record.get(field) is None:
                canvas = field == "campaign_id" and record.get("canvas_id") is not None
                self.skipped[CANVAS if canvas else f"events without {field}"] += 1
                return
        campaign_id, send_id = (id_in(record, field) for field in REQUIRED)
        seconds = record.get("time")
        if not isinstance(seconds, int) or isinstance(seconds, bool):
            raise Unusable("time", "missing" if seconds is None else f"{seconds!r} is no whole number of Unix seconds")
        check_time("time", seconds, seconds, latest=self._now + DAY_SECONDS)
        times.add(Pair(self._workspace, campaign_id, send_id), float(seconds))


def files_of(name: str) -> Iterator[tuple[str, Opener]] | None:
    """Name and open the files of Currents at a place: a folder or a bucket with all below it, or one ``.avro`` file.

    None for the name of something else. Raises ``UsageError`` where there is nothing to read, ``SinkError`` where a
    bucket cannot be listed.
    """
    if in_store(name):
        return None if name.endswith(OF_LISTS) else _files_in_store(name)
    path = Path(name)
    try:
        if path.is_dir():
            if next(_files_below(path), None) is None:
                raise UsageError(f"{name}: no folder of Currents, for no .avro file is in it or below it")
            return _files_below(path)
        if name.endswith(".avro"):
            open_once(path)
            return iter([(name, _opener(path))])
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; check the name") from None
    return None


def _files_in_store(name: str) -> Iterator[tuple[str, Opener]]:
    from harvester.storage.object_store import Store  # noqa: PLC0415 - only those who use a store wait for its library

    if name.endswith(".avro"):
        place, _, name = name.rpartition("/")
        return iter([(f"{place}/{name}", partial(Store(place).open, name))])
    store = Store(name)
    found = (each for each in store.names() if each.endswith(".avro"))
    first = next(found, None)
    if first is None:
        raise UsageError(f"{name}: no place of Currents, for no .avro object is below it")
    return ((f"{store.url}/{each}", partial(store.open, each)) for each in chain([first], found))


def _files_below(top: Path) -> Iterator[tuple[str, Opener]]:
    """Go through folders in order, one folder's names in memory at a time; links to folders are not followed.

    A folder that cannot be listed comes as a file that cannot be opened.
    """
    unlisted: list[OSError] = []
    for folder, below, files in os.walk(top, onerror=unlisted.append):
        below.sort()
        for file in sorted(files):
            if file.endswith(".avro"):
                path = Path(folder, file)
                yield str(path), _opener(path)
    for error in unlisted:
        yield str(error.filename), _opener(Path(error.filename))


def _opener(path: Path) -> Opener:
    def opened() -> BinaryIO:
        check_plain(path)
        return path.open("rb")

    return opened


def _tells_of_sends(event_type: str) -> bool:
    # By the last word, whole: users.messages.sms.CarrierSend tells of a carrier's.
    return event_type.lower().endswith(".send")


def _decoded(name: str) -> str:
    """Undo what a copy between buckets may have done to a name: ``event_type%3Dusers...``."""
    for _ in range(_ENCODED_AT_MOST):
        name = unquote(name)
    return name


def _shown(record: dict[str, Any]) -> str:
    """Show of an event what it was judged by: the rest tells of a user."""
    return str({name: record.get(name) for name in (*REQUIRED, "time")})[:500]


def _opened(opener: Opener) -> BinaryIO:
    try:
        return opener()
    except OSError as error:
        raise UnreadableAvro(error.strerror or str(error)) from None
