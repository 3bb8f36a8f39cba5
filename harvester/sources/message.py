"""What a message may say: one pair, a list of pairs, or where files of pairs lie. Pure.

Three spellings of version 1, and the events that object stores send (``events``)::

    {"version": 1, "campaign_id": "...", "send_id": "...", "sent_at": "...", "workspace": "..."}
    {"version": 1, "pairs": [{"campaign_id": "...", "send_id": "...", "sent_at": "...", "workspace": "..."}, ...]}
    {"version": 1, "file": "s3://bucket/folder/name.csv"}

``sent_at`` and ``workspace`` may be left out; ``"once": true`` asks for a historical capture. What is unknown is
refused, never guessed at: a later version may mean something by it. No reason quotes more than a field's name or value.

A message of several parts, pairs or records, that is good in part is taken in part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from harvester.model import DAY_SECONDS, Enqueued, in_store
from harvester.sources.fields import COLUMNS, OF_LISTS, Unusable, pair_in, time_in
from harvester.sources.send_times import earliest_of_each
from harvester.sources.store_events import NothingToRead, created_object, list_records, load_object

MAX_MESSAGE_BYTES = 1 << 20
"""What is longer is not even parsed; lists that need more belong in a file."""

_MEMBERS = frozenset({"version", "once", "pairs", "file", *COLUMNS})
_GZIP = b"\x1f\x8b"


_REASONS = 10
"""So many parts of a message that are bad get a reason each: a message may hold half a million."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a message asks for: pairs, files of pairs, or nothing.

    ``bad`` holds the parts that cannot be read, as they came, the first ones with their reasons; ``skipped`` says what
    events report that is no file to read. ``records`` are the parts that name the files, in the same order.
    """

    pairs: tuple[Enqueued, ...] = ()
    files: tuple[str, ...] = ()
    once: bool = False
    bad: tuple[tuple[object, str], ...] = ()
    naive_times: int = 0
    skipped: tuple[str, ...] = field(default=(), compare=False)
    records: tuple[object, ...] = field(default=(), compare=False)

    def leftover(self, failed: Mapping[str, str] | None = None) -> tuple[bytes, str]:
        """Give the bad parts as a message of their own, which can be mended and sent again, and its reason.

        ``failed`` says of files what was wrong with them. Raises ``TypeError`` where the parts cannot be written: JSON
        is read at greater depths than it is written.
        """
        failed = failed or {}
        parts = [record for record, _ in self.bad]
        parts += [record for file, record in zip(self.files, self.records, strict=True) if file in failed]
        body = {"Records": parts} if self.records else {"version": 1, "pairs": parts}
        reasons = [*(reason for _, reason in self.bad[:_REASONS]), *list(failed.values())[:_REASONS]]
        return orjson.dumps(body | ({"once": True} if self.once else {})), "; ".join(reasons)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads messages for a service that has these workspaces and follows pointers below these prefixes only."""

    workspaces: Sequence[str]
    prefixes: Sequence[str]

    def read(self, body: bytes, *, latest: float) -> Message:
        """Understand a message; no time in it may lie after ``latest``. Raises ``Unusable`` with field and reason."""
        if len(body) > MAX_MESSAGE_BYTES:
            raise Unusable(
                "", f"has {len(body)} bytes; at most {MAX_MESSAGE_BYTES} are read; put longer lists into a file"
            )
        if body.startswith(_GZIP):
            raise Unusable("", "is compressed; send the JSON as it is")
        told = load_object(body)
        records = list_records(told)
        return self._own(told, latest) if records is None else self._reported(records)

    def _reported(self, records: list[object]) -> Message:
        """Take the files that events report, each once. Raises ``Unusable`` where no event can be read."""
        files: dict[str, object] = {}
        bad: list[tuple[object, str]] = []
        skipped: list[str] = []
        for number, record in enumerate(records, 1):
            try:
                url = created_object(record)
                try:
                    files.setdefault(self._allowed(url), record)
                except Unusable as error:
                    raise Unusable(error.field, f"{error.problem}: {url[:200]}") from None
            except NothingToRead as why:
                skipped.append(str(why))
            except Unusable as error:
                if len(records) == 1:
                    raise
                bad.append((record, f"record {number}: {reason(error)}" if len(bad) < _REASONS else ""))
        if not files and not skipped:
            raise Unusable("", "; ".join(why for _, why in bad[:_REASONS]))
        return Message(
            files=tuple(files), records=tuple(files.values()), bad=tuple(bad), skipped=tuple(skipped[:_REASONS])
        )

    def _own(self, told: dict[str, Any], latest: float) -> Message:
        version, once = told.get("version"), told.get("once", False)
        if type(version) is not int or version != 1:
            raise Unusable("version", "is missing" if version is None else "is not 1, which is all that is known here")
        if unknown := told.keys() - _MEMBERS:
            raise Unusable(min(unknown)[:64], "is unknown in version 1")
        if not isinstance(once, bool):
            raise Unusable("once", "must be true or false")
        rest = told.keys() - {"version", "once"}
        if rest == {"file"}:
            return Message(files=(self._allowed(told["file"]),), records=(told,), once=once)
        if rest == {"pairs"}:
            return self._listed(told["pairs"], once, latest)
        if rest & {"file", "pairs"}:
            raise Unusable("", "says more than one of: a pair's own fields, pairs, file")
        enqueued, naive = self._enqueued({name: told[name] for name in rest}, latest)
        return Message(pairs=(enqueued,), once=once, naive_times=naive)

    def _listed(self, records: object, once: bool, latest: float) -> Message:  # noqa: FBT001 - it is the message's word
        if not isinstance(records, list) or not records:
            raise Unusable("pairs", "must be a list of at least one pair")
        bad: list[tuple[object, str]] = []
        pairs, naive_times = [], 0
        for number, record in enumerate(records, 1):
            try:
                enqueued, naive = self._enqueued(record, latest)
            except Unusable as error:
                bad.append((record, f"pair {number}: {reason(error)}" if len(bad) < _REASONS else ""))
            else:
                pairs.append(enqueued)
                naive_times += naive
        pairs = earliest_of_each(pairs, now=latest - DAY_SECONDS)
        return Message(tuple(pairs), once=once, bad=tuple(bad), naive_times=naive_times)

    def _enqueued(self, record: object, latest: float) -> tuple[Enqueued, bool]:
        if not isinstance(record, dict):
            raise Unusable("", "is no object")
        if unknown := record.keys() - set(COLUMNS):
            raise Unusable(min(unknown)[:64], "is unknown in version 1")
        pair = pair_in(record, self.workspaces)
        sent_at, naive = time_in(record, "sent_at", latest=latest)
        return Enqueued(pair, sent_at), naive

    def _allowed(self, url: object) -> str:
        """Give a pointer back if it names a list of pairs, plainly, below one of the prefixes."""
        if not isinstance(url, str) or not in_store(url):
            raise Unusable("file", "must be the URL of a file in a bucket, such as s3://bucket/folder/name.csv")
        # Whatever a URL or a path could read in two ways is not followed at all.
        steps = url.partition("://")[2].split("/")
        if not url.isprintable() or any(mark in url for mark in "%?#\\") or not {"", ".", ".."}.isdisjoint(steps):
            raise Unusable("file", "its name holds one of % ? # \\, a control character, or an empty, . or .. step")
        if not any(url.startswith(prefix.rstrip("/") + "/") for prefix in self.prefixes):
            raise Unusable("file", "lies below none of the prefixes of this trigger")
        if not url.endswith(OF_LISTS):
            raise Unusable("file", f"its name must end in one of {', '.join(OF_LISTS)}")
        return url


def reason(error: Unusable) -> str:
    """Say in one line which field is wrong and why."""
    return f"{error.field}: {error.problem}" if error.field else error.problem
