"""Sends from Braze Currents: Avro files of events, in a folder or one by one. The only door to fastavro.

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

from harvester.errors import UsageError
from harvester.model import DAY_SECONDS, RETENTION_SECONDS, BadLine, Enqueued, Pair, in_store
from harvester.sources.fields import OF_LISTS, REQUIRED, Unusable, check_time, id_in
from harvester.tables import SendTimes

Opener = Callable[[], BinaryIO]
"""Opens a file's bytes; what it gives can be read and tells its position, but need not seek."""

_CODECS = ("null", "deflate", "bzip2", "xz")
_EVENT_TYPE = re.compile(r"(?:^|/)event_type=([^/]+)(?=/)")
OTHER_TYPES = "files of other event types"
CANVAS = "events of a canvas"


class _Unreadable(Exception):  # noqa: N818 - it never leaves this file
    """A file that gives no further event: why."""


class Currents:
    """The sends that files of events tell of.

    ``files`` and ``events`` count what was read, ``skipped`` what was passed over, by cause.
    """

    def __init__(self, files: Iterable[tuple[str, Opener]], *, workspace: str, now: float) -> None:
        """Take named files of one workspace; none is opened before it is read."""
        self._listed = files
        self._workspace = workspace
        self._now = now
        self.files = 0
        self.events = 0
        self.skipped: Counter[str] = Counter()

    def read(self) -> Iterator[Enqueued | BadLine | None]:
        """Give bad lines as they are met, then each send once, oldest first. After each file comes a None.

        A bad line's number is that of the event in its file; for a file that breaks off, that of the last readable
        one. Raises ``StorageError`` when the disk cannot hold the sends for a while.
        """
        with SendTimes() as times:
            for name, opener in self._listed:
                yield from self._file(name, opener, times)
                yield None
            for campaign_id, send_id, first, last in times.each():
                yield Enqueued(Pair(self._workspace, campaign_id, send_id), self._sent_at(first, last))

    def _sent_at(self, first: int, last: int) -> float:
        """Choose the time from which the deadline counts: the first event's, so that no deadline is met late.

        Which send starts the clock when a send id is used again is undocumented. So once the first is beyond
        retention the last one counts: that may cost a call in vain, but no send that can be read expires unasked.
        """
        return float(first if self._now - first < RETENTION_SECONDS else last)

    def _file(self, name: str, opener: Opener, times: SendTimes) -> Iterator[BadLine]:
        named = _EVENT_TYPE.findall(name)
        if named and not _tells_of_sends(named[-1]):
            self.skipped[OTHER_TYPES] += 1
            return
        number = 0
        try:
            with _opened(opener) as file:
                reader = _reader(file)
                if not named and not _tells_of_sends(_record_name(reader.writer_schema)):
                    self.skipped[OTHER_TYPES] += 1
                    return
                self.files += 1
                for number, record in enumerate(_records(reader), 1):
                    self.events += 1
                    try:
                        self._meet(record, times)
                    except Unusable as error:
                        yield BadLine(name, number, error.field, error.problem, _shown(record))
        except _Unreadable as error:
            where = f"after event {number}" if number else "at all"
            yield BadLine(name, number, "", f"cannot be read {where}: {error}", "")

    def _meet(self, record: object, times: SendTimes) -> None:
        """Take one event. Raises ``Unusable``."""
        if not isinstance(record, dict):
            raise Unusable("", "no event: it has no fields")
        for field in REQUIRED:
            if record.get(field) is None:
                canvas = field == "campaign_id" and record.get("canvas_id") is not None
                self.skipped[CANVAS if canvas else f"events without {field}"] += 1
                return
        campaign_id, send_id = (id_in(record, field) for field in REQUIRED)
        seconds = record.get("time")
        if not isinstance(seconds, int):
            raise Unusable("time", "missing" if seconds is None else f"{seconds!r} is no whole number of Unix seconds")
        check_time("time", seconds, seconds, latest=self._now + DAY_SECONDS)
        times.add(campaign_id, send_id, seconds)


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
            path.open("rb").close()
            return iter([(name, _opener(path))])
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; check the name") from None
    return None


def _files_in_store(name: str) -> Iterator[tuple[str, Opener]]:
    from harvester.stores import Store  # noqa: PLC0415 - only those who use a store wait for its library

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
    return lambda: path.open("rb")


def _tells_of_sends(event_type: str) -> bool:
    # By the last word, whole: users.messages.sms.CarrierSend tells of a carrier's.
    return event_type.lower().endswith(".send")


def _record_name(schema: Any) -> str:
    return str(schema.get("name", "")) if isinstance(schema, dict) else ""


def _shown(record: object) -> str:
    """Show of an event what it was judged by: the rest tells of a user."""
    seen = {name: record.get(name) for name in (*REQUIRED, "time")} if isinstance(record, dict) else record
    return str(seen)[:500]


def _opened(opener: Opener) -> BinaryIO:
    try:
        return opener()
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from None


def _reader(file: BinaryIO) -> Any:
    """Read a file's header. Raises ``_Unreadable``."""
    import fastavro  # noqa: PLC0415 - few runs read Currents

    try:
        reader = fastavro.block_reader(file)
        endless = _holds_itself(reader.writer_schema)
    except Exception as error:  # noqa: BLE001 - a damaged header breaks the library anywhere
        raise _Unreadable(f"it is no Avro file, or its header is damaged ({_told(error)})") from None
    if endless:
        raise _Unreadable("its schema holds itself")
    if reader.codec not in _CODECS:
        raise _Unreadable(f"its codec {reader.codec} is none of {', '.join(_CODECS)}; have it rewritten with deflate")
    return reader


def _holds_itself(schema: Any, around: tuple[str, ...] = ()) -> bool:
    """Tell whether a record can contain itself: no event does, and the library would follow it until it crashes."""
    if isinstance(schema, str):
        return schema in around
    if isinstance(schema, list):
        return any(_holds_itself(each, around) for each in schema)
    inside = (*around, schema["name"]) if "name" in schema else around
    parts = [schema[key] for key in ("type", "items", "values") if key in schema]
    return any(_holds_itself(each, inside) for each in (*parts, *(field["type"] for field in schema.get("fields", ()))))


def _records(reader: Any) -> Iterator[object]:
    """Give the events behind a header, one block in memory at a time. Raises ``_Unreadable`` where they break off."""
    try:
        for block in reader:
            yield from block
    except Exception as error:  # noqa: BLE001 - damaged data breaks the library anywhere
        raise _Unreadable(f"it breaks off or is damaged ({_told(error)}); fetch it again") from None


def _told(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:200]
