"""What a message may say: one pair, a list of pairs, or where a file of pairs lies. Pure.

Three spellings of version 1, and S3's own event notification, bare or wrapped by SNS::

    {"version": 1, "campaign_id": "...", "send_id": "...", "sent_at": "...", "workspace": "..."}
    {"version": 1, "pairs": [{"campaign_id": "...", "send_id": "...", "sent_at": "...", "workspace": "..."}, ...]}
    {"version": 1, "file": "s3://bucket/folder/name.csv"}

``sent_at`` and ``workspace`` may be left out; ``"once": true`` asks for a historical capture. What is unknown is
refused, never guessed at: a later version may mean something by it. No reason quotes more than a field's name or value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import orjson

from harvester.model import Enqueued, in_store
from harvester.sources.fields import COLUMNS, OF_LISTS, Unusable, pair_in, time_in

MAX_MESSAGE_BYTES = 1 << 20
"""What is longer is not even parsed; lists that need more belong in a file."""

_MEMBERS = frozenset({"version", "once", "pairs", "file", *COLUMNS})
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Message:
    """What a message asks for: pairs, files of pairs, or nothing (a store's test event).

    ``bad`` holds the members of a list that name no pair, as they came, each with its reason.
    """

    pairs: tuple[Enqueued, ...] = ()
    files: tuple[str, ...] = ()
    once: bool = False
    bad: tuple[tuple[object, str], ...] = ()
    naive_times: int = 0

    def leftover(self) -> tuple[bytes, str]:
        """Give the bad pairs as a message of their own, which can be mended and sent again, and its reason."""
        body = {"version": 1, "pairs": [record for record, _ in self.bad]} | ({"once": True} if self.once else {})
        return orjson.dumps(body), "; ".join(reason for _, reason in self.bad[:10])


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads messages for a service that has these workspaces and follows pointers below these prefixes only."""

    workspaces: Sequence[str]
    prefixes: Sequence[str]

    def read(self, body: bytes, *, latest: float) -> Message:
        """Understand a message; no time in it may lie after ``latest``. Raises ``Unusable`` with field and reason."""
        if len(body) > MAX_MESSAGE_BYTES:
            raise Unusable("", f"has {len(body)} bytes; {MAX_MESSAGE_BYTES} are read, longer lists belong in a file")
        if body.startswith(_GZIP):
            raise Unusable("", "is compressed; send the JSON as it is")
        told = _object(body)
        if told.get("Type") == "Notification" and isinstance(told.get("Message"), str):
            told = _object(told["Message"].encode())
        if told.get("Event") == "s3:TestEvent":
            return Message()
        if "Records" in told:
            return Message(files=tuple(self._allowed(url) for url in _created(told["Records"])))
        return self._own(told, latest)

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
            return Message(files=(self._allowed(told["file"]),), once=once)
        if rest == {"pairs"}:
            return self._listed(told["pairs"], once, latest)
        if rest & {"file", "pairs"}:
            raise Unusable("", "says more than one of: a pair's own fields, pairs, file")
        enqueued, naive = self._enqueued({name: told[name] for name in rest}, latest)
        return Message(pairs=(enqueued,), once=once, naive_times=naive)

    def _listed(self, records: object, once: bool, latest: float) -> Message:  # noqa: FBT001 - it is the message's word
        if not isinstance(records, list) or not records:
            raise Unusable("pairs", "must be a list of at least one pair")
        pairs, bad, naive_times = [], [], 0
        for number, record in enumerate(records, 1):
            try:
                enqueued, naive = self._enqueued(record, latest)
            except Unusable as error:
                bad.append((record, f"pair {number}: {reason(error)}"))
            else:
                pairs.append(enqueued)
                naive_times += naive
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


def _object(text: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Unusable("", f"is no JSON: {error}") from None
    if not isinstance(told, dict):
        raise Unusable("", "is no JSON object")
    return told


def _created(records: object) -> list[str]:
    """Give the URLs of the objects that an S3 event tells of (documentation of its "event message structure")."""
    if not isinstance(records, list) or not records:
        raise Unusable("Records", "must be a list of at least one record")
    urls = []
    for record in records:
        name = _text_at(record, "eventName")
        if not name.startswith("ObjectCreated:"):
            raise Unusable("eventName", "is none of ObjectCreated; let the bucket tell of those alone")
        # In an event, a key is encoded as a form's field is: a blank comes as a plus.
        urls.append(
            f"s3://{_text_at(record, 's3', 'bucket', 'name')}/{unquote_plus(_text_at(record, 's3', 'object', 'key'))}"
        )
    return urls


def _text_at(record: object, *path: str) -> str:
    value = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str):
        raise Unusable(".".join(path), "is missing; no event of S3 looks like this")
    return value
