"""Events of object stores: which object a store reports as created. Pure.

A store sends one event or a list of them, and a messaging service may wrap it. Supported, with their sources:

- S3 ("Event message structure" in the S3 user guide): ``Records``, keys form-encoded.
- EventBridge ("EventBridge event message structure", same guide): ``detail-type`` and ``detail``, keys not encoded.
- MinIO (``internal/event/event.go``, ``cmd/event-notification.go``): ``Records`` beside ``EventName`` and ``Key``,
  event names with the prefix ``s3:``, keys encoded including slashes; in its ``access`` format a list of ``Event``.
- Ceph's gateway (``src/rgw/rgw_pubsub.cc``, ``rgw_notify.cc``): ``Records``, keys not encoded.
- Cloudflare R2 ("Event notifications" in its documentation): ``action``, ``bucket`` and ``object``, keys not encoded.
- Google Cloud Storage ("Pub/Sub notifications", Eventarc): the object's resource, a push request, or a CloudEvent.
- Azure ("Azure Blob Storage as an Event Grid source"): Event Grid's own schema or a CloudEvent.
- SNS ("Amazon SNS message formats"): a ``Notification`` around any of these; with raw delivery, no envelope.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

import orjson

from harvester.sources.fields import OF_LISTS, Unusable

_ENVELOPES = 3
"""How many envelopes are opened, one inside the other."""

_LISTS = ("Records", "Event")
_R2_CREATED = ("PutObject", "CopyObject", "CompleteMultipartUpload")
_AZURE_BLOBS = "/blobServices/default/containers/"


class NothingToRead(Exception):  # noqa: N818 - it is an answer, no fault
    """An event names no file to read. The text says what it reports."""


def load_object(text: bytes) -> dict[str, Any]:
    """Parse a message and open the envelopes around it. Raises ``Unusable``."""
    for _ in range(_ENVELOPES):
        try:
            message = orjson.loads(text)
            _check_unique(text, message)
        except orjson.JSONDecodeError as error:
            raise Unusable("", f"is not JSON: {error}") from None
        if (
            isinstance(message, list)
            and message
            and all(isinstance(each, dict) and _is_event(each) for each in message)
        ):
            return {"Records": message}
        if not isinstance(message, dict):
            raise Unusable("", "is not a JSON object")
        if message.get("Type") != "Notification" or not isinstance(message.get("Message"), str):
            return message
        text = message["Message"].encode()
    raise Unusable("", f"is wrapped more than {_ENVELOPES - 1} times by SNS")


def _check_unique(text: bytes, message: object) -> None:
    """Raise ``Unusable`` for an object that names a member twice: a parser keeps the last one in silence.

    Written again, the parsed message then has fewer quotes. Only a text that may differ is parsed a second time.
    """
    with contextlib.suppress(orjson.JSONEncodeError):  # JSON is read at greater depths than it is written
        if b"\\u" not in text and orjson.dumps(message).count(b'"') == text.count(b'"'):
            return

    def check(members: list[tuple[str, object]]) -> dict[str, object]:
        unique = dict(members)
        if len(unique) < len(members):
            twice = Counter(name for name, _ in members).most_common(1)[0][0]
            raise Unusable(twice[:64], "is named twice in one object; leave one of them out")
        return unique

    try:
        json.loads(text, object_pairs_hook=check, parse_int=str, parse_float=str)
    except RecursionError:
        raise Unusable("", "is nested too deeply") from None


def list_records(message: Mapping[str, Any]) -> list[object] | None:
    """Give the events that a message consists of, None for one that is no event. Raises ``Unusable``."""
    for name in _LISTS:
        if name in message and not isinstance(message[name], str):
            if not isinstance(message[name], list) or not message[name]:
                raise Unusable(name, "must be a list of at least one record")
            return [record for each in message[name] for record in _records_in(each)]
    return [message] if _is_event(message) else None


def _records_in(record: object) -> list[object]:
    """Open what MinIO's ``access`` format puts around records."""
    match record:
        case {"Event": [*records], "EventTime": _}:
            return records
    return [record]


def _is_event(message: Mapping[str, Any]) -> bool:
    match message:
        case (
            {"Event": "s3:TestEvent"}
            | {"eventName": _, "s3": _}
            | {"EventTime": _, "Event": _}
            | {"detail-type": _, "detail": _}
            | {"bucket": {}, "object": {}, "reason": _}
            | {"action": str(), "bucket": str(), "object": {}}
            | {"kind": "storage#object"}
            | {"message": {"attributes": {}}}
            | {"specversion": _, "type": str()}
            | {"eventType": str(), "subject": _}
        ):
            return True
    return False


def created_object(record: object) -> str:
    """Give the URL of the object that an event reports as created.

    Raises ``NothingToRead`` for other events and for objects that only mark something, ``Unusable`` for no event.
    """
    url = _url_of(record)
    steps = url.partition("://")[2].split("/")[1:]
    hidden = any(step.startswith(("_", ".")) and step not in (".", "..") for step in steps)
    if url.endswith(("/", "_$folder$")):
        raise NothingToRead(f"{url} is a folder")
    if any(step.startswith("_temporary") for step in steps) or (hidden and not url.endswith(OF_LISTS)):
        raise NothingToRead(f"{url} is a marker or a hidden file")
    return url


def _url_of(record: object) -> str:  # noqa: PLR0911 - one return a kind of event
    match record:
        case {"Event": "s3:TestEvent"}:
            raise NothingToRead("a test event of the store")
        case {"detail-type": kind, "detail": detail}:
            _only(kind, "Object Created")
            return _url("s3", detail, ("bucket", "name"), ("object", "key"), within="detail.")
        case {"bucket": {"name": str()}, "object": {"key": str()}, "reason": reason}:  # the detail alone
            _only(reason, *_R2_CREATED, "POST Object")
            return _url("s3", record, ("bucket", "name"), ("object", "key"))
        case {"action": action, "object": {}}:
            _only(action, *_R2_CREATED)
            return _url("s3", record, ("bucket",), ("object", "key"))
        case {"kind": "storage#object"}:
            return _google(record)
        case {"message": {"attributes": {"eventType": kind} as attributes}}:
            _only(kind, "OBJECT_FINALIZE")
            return _url("gs", attributes, ("bucketId",), ("objectId",), within="message.attributes.")
        case {"specversion": _, "type": str(kind), "data": data} if kind.startswith("google.cloud.storage."):
            _only(kind, "google.cloud.storage.object.v1.finalized")
            return _google(data)
        case {"specversion": _, "type": kind} | {"eventType": kind, "subject": _}:
            _only(kind, "Microsoft.Storage.BlobCreated")
            return _azure(record)
    return _s3(record)


def _s3(record: object) -> str:
    name = _text_at(record, "eventName").removeprefix("s3:")
    if not name.startswith("ObjectCreated"):
        raise NothingToRead(f"event {name[:64]} creates no object")
    bucket, key = _text_at(record, "s3", "bucket", "name"), _text_at(record, "s3", "object", "key")
    if not (isinstance(record, Mapping) and record.get("eventSource") == "ceph:s3"):
        key = unquote_plus(key)
    return f"s3://{bucket}/{key}"


def _google(resource: object) -> str:
    if isinstance(resource, Mapping) and "timeDeleted" in resource:
        raise NothingToRead("the object was deleted")
    return _url("gs", resource, ("bucket",), ("name",))


def _azure(record: object) -> str:
    """Read the subject: unlike ``data.url`` it is not encoded."""
    container, slash, blob = _text_at(record, "subject").removeprefix(_AZURE_BLOBS).partition("/blobs/")
    if not slash:
        raise Unusable("subject", "names no blob, so this is not an event of Azure Blob Storage")
    return f"az://{container}/{blob}"


def _only(kind: object, *created: str) -> None:
    if not isinstance(kind, str):
        raise Unusable("", "is an event whose type is not text")
    if kind not in created:
        raise NothingToRead(f"event {kind[:64]} creates no object")


def _url(scheme: str, record: object, bucket: tuple[str, ...], key: tuple[str, ...], *, within: str = "") -> str:
    return f"{scheme}://{_text_at(record, *bucket, within=within)}/{_text_at(record, *key, within=within)}"


def _text_at(record: object, *path: str, within: str = "") -> str:
    """Give the text at a path of members. Raises ``Unusable`` where there is none."""
    value = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str):
        raise Unusable(within + ".".join(path), "is missing, so this is not an event of an object store")
    return value
