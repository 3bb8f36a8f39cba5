"""Reads sends from the files of Braze Currents, which are Avro files of events.

The rules come from Braze's documentation of the events of Currents and their delivery:

- Each file contains events of one type, which the path names: ``.../event_type=users.messages.email.Send/date=.../``.
  Otherwise the name of the record in the file's schema does (``dataexport.S3.inner.users.messages.email.Send``).
- Only types that end in ``.Send`` report sends. Files whose path names another type are skipped without opening them.
- ``campaign_id`` and ``send_id`` may be null; ``time`` is in Unix seconds. An event that lacks one of these ids is
  skipped and counted by cause. The causes are messages of a canvas, and campaigns that were sent without a send id.
- Fields differ between versions of the schema, so each field is found by its name.
- Events are delivered at least once, one for each user, so a send has many events. Each send is returned once.

If a file is incomplete, the events before the damage are read. Avro has no checksums, so a file that ends between two
blocks seems complete.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote

from harvester.model import DAY_SECONDS, BadLine, Pair, SentPair
from harvester.sources.avro.binary import UnreadableAvro
from harvester.sources.avro.reader import AvroFile
from harvester.sources.fields import ID_FIELDS, InvalidField, parse_id
from harvester.sources.lists.listed_files import FileOpener, ListedFile
from harvester.sources.send_times import SendTimes, choose_send_time
from harvester.sources.times import parse_time

OTHER_TYPES = "files of other event types"
CANVAS_EVENTS = "events of a canvas"

_EVENT_FIELDS = (*ID_FIELDS, "time", "canvas_id")
_QUOTED_FIELDS = (*ID_FIELDS, "time")
_MAX_QUOTED_CHARACTERS = 500
_EVENT_TYPE = re.compile(r"(?:^|/)event_type=([^/]+)(?=/)")
_EVENT_RECORD = re.compile(r"(?:^|\.)users\.")
_MAX_ENCODINGS = 3
"""How many times a path may be percent-encoded. Tools that copy between buckets encode paths."""


class CurrentsReader:
    """Reads the sends that the events in files report.

    ``files`` and ``events`` count what was read; ``skipped`` counts skipped files and events by cause. ``broken`` is
    whether a file could not be read completely.
    """

    def __init__(self, files: Iterable[ListedFile], *, workspace: str, now: float) -> None:
        """Create a reader of named files of one workspace. Each file is opened when it is read."""
        self._files_to_read = files
        self._workspace = workspace
        self._now = now
        self.broken = False
        self.files = 0
        self.events = 0
        self.skipped: Counter[str] = Counter()

    def read(self) -> Iterator[SentPair | BadLine | None]:
        """Yield bad lines immediately, None after each file, and at the end each send once.

        The number of a bad line is the number of the event in its file. For an incomplete file, it is the number of the
        last readable event. Raises ``StorageError`` if the disk has no space to sort the sends.
        """
        with SendTimes() as times:
            for file in self._files_to_read:
                yield from self._read_file(file.name, file.open, times)
                yield None
            for pair, first, last, _ in times.list_sends():
                yield SentPair(pair, choose_send_time(first, last, now=self._now))

    @property
    def only_other_types(self) -> bool:
        """Whether all files have types that report no sends. The place is then probably wrong."""
        return bool(self.skipped[OTHER_TYPES]) and not self.files and not self.broken

    def _read_file(self, name: str, opener: FileOpener, times: SendTimes) -> Iterator[BadLine]:
        event_type = find_event_type(name)
        if event_type is not None and not is_send_event(event_type):
            self.skipped[OTHER_TYPES] += 1
            return
        number = 0
        try:
            with _open(opener) as file:
                avro = AvroFile(file)
                if event_type is None and not is_send_event(avro.record_name):
                    self.skipped[OTHER_TYPES] += 1
                    return
                self.files += 1
                for number, record in enumerate(avro.read_records(_EVENT_FIELDS), 1):
                    self.events += 1
                    try:
                        self._add_event(record, times)
                    except InvalidField as error:
                        yield BadLine(name, number, error.field, error.problem, _quote(record))
        except UnreadableAvro as error:
            self.broken = True
            position = f"after event {number}" if number else "at all"
            yield BadLine(name, number, "", f"the file cannot be read {position}: {error}", "")

    def _add_event(self, record: dict[str, Any], times: SendTimes) -> None:
        """Add one event, or count it by the cause why it is skipped. Raises ``InvalidField``."""
        for field in ID_FIELDS:
            if record.get(field) is None:
                of_canvas = field == "campaign_id" and record.get("canvas_id") is not None
                self.skipped[CANVAS_EVENTS if of_canvas else name_missing_field_cause(field)] += 1
                return
        campaign_id, send_id = (parse_id(record, field) for field in ID_FIELDS)
        seconds, _ = parse_time(record, "time", latest=self._now + DAY_SECONDS)
        if seconds is None:
            raise InvalidField("time", "is missing")
        times.add(Pair(self._workspace, campaign_id, send_id), seconds)


def find_event_type(path: str) -> str | None:
    """Return the event type that a path names, or None. The path may be encoded: ``event_type%3Dusers...``."""
    for _ in range(_MAX_ENCODINGS):
        path = unquote(path)
    types: list[str] = _EVENT_TYPE.findall(path)
    return types[-1] if types else None


def is_send_event(event_type: str) -> bool:
    """Return whether events of a type report sends: its last word is ``Send``, not for example ``CarrierSend``."""
    return event_type.lower().endswith(".send")


def contains_events(file: ListedFile) -> bool:
    """Return whether an Avro file contains events of Currents, by its path or by the name of its records.

    Returns True if it cannot be read, so that ``CurrentsReader`` reports why.
    """
    if find_event_type(file.name) is not None:
        return True
    try:
        with file.open() as stream:
            record_name = AvroFile(stream).record_name
    except (OSError, UnreadableAvro):
        return True
    return _EVENT_RECORD.search(record_name) is not None or is_send_event(record_name)


def name_missing_field_cause(field: str) -> str:
    """Return the cause that counts events without this field."""
    return f"events without {field}"


def _quote(record: dict[str, Any]) -> str:
    """Return the checked fields of an event as text. Other fields are left out, because they describe a user."""
    return str({name: record.get(name) for name in _QUOTED_FIELDS})[:_MAX_QUOTED_CHARACTERS]


def _open(opener: FileOpener) -> BinaryIO:
    try:
        return opener()
    except OSError as error:
        raise UnreadableAvro(error.strerror or str(error)) from None
