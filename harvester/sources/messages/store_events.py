"""Parses the events of object stores, to find the object that was created. Pure.

A store sends one event or a list of events, and a messaging service may wrap them. These are supported, with sources:

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

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from harvester.sources.fields import InvalidField
from harvester.sources.lists.kinds import is_list_name
from harvester.sources.messages.json_objects import load_json

_MAX_ENVELOPES = 3
"""How many times a message is parsed: each time but the last, SNS may have wrapped it."""

_MAX_QUOTED_EVENT_CHARACTERS = 64
_LIST_MEMBERS = ("Records", "Event")
_R2_CREATED = ("PutObject", "CopyObject", "CompleteMultipartUpload")
_AZURE_CONTAINERS = "/blobServices/default/containers/"


class NoFileToRead(Exception):  # noqa: N818 - it is an expected result, not an error
    """An event names no file to read; the text says why."""


def load_message(text: bytes) -> dict[str, Any]:
    """Parse a message, and remove the envelopes of SNS around it. Raises ``InvalidField``.

    A bare array is returned as the ``Records`` of an event, or as the ``pairs`` of version 1.
    """
    for _ in range(_MAX_ENVELOPES):
        message = load_json(text)
        if isinstance(message, list):
            events = [each for each in message if isinstance(each, dict) and _is_event(each)]
            return {"Records": message} if events else {"version": 1, "pairs": message}
        if not isinstance(message, dict):
            raise InvalidField("", "the message is not a JSON object")
        if message.get("Type") != "Notification" or not isinstance(message.get("Message"), str):
            return message
        text = message["Message"].encode()
    raise InvalidField("", f"the message is wrapped more than {_MAX_ENVELOPES - 1} times by SNS")


def list_records(message: Mapping[str, Any]) -> list[object] | None:
    """Return the events in a message, or None if it is not an event. Raises ``InvalidField``."""
    for name in _LIST_MEMBERS:
        if name in message and not isinstance(message[name], str):
            if not isinstance(message[name], list) or not message[name]:
                raise InvalidField(name, "must be a list of at least one record")
            return [record for each in message[name] for record in _unwrap_minio(each)]
    return [message] if _is_event(message) else None


def _unwrap_minio(record: object) -> list[object]:
    """Return the records in a record of MinIO's ``access`` format; return any other record unchanged."""
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


def parse_created_object(record: object) -> str:
    """Return the URL of the object that an event reports as created.

    Raises ``NoFileToRead`` for other events, folders, markers and hidden files, ``InvalidField`` for an invalid event.
    """
    url = _parse_url(record)
    segments = url.partition("://")[2].split("/")[1:]
    hidden = any(segment.startswith(("_", ".")) and segment not in (".", "..") for segment in segments)
    if url.endswith(("/", "_$folder$")):
        raise NoFileToRead(f"{url} is a folder")
    if any(segment.startswith("_temporary") for segment in segments) or (hidden and not is_list_name(url)):
        raise NoFileToRead(f"{url} is a marker or a hidden file")
    return url


def _parse_url(record: object) -> str:  # noqa: PLR0911 - one return for each kind of event
    match record:
        case {"Event": "s3:TestEvent"}:
            raise NoFileToRead("it is a test event of the store")
        case {"detail-type": event_type, "detail": detail}:
            _require_created(event_type, "Object Created")
            return _build_url("s3", detail, ("bucket", "name"), ("object", "key"), within="detail.")
        case {"bucket": {"name": str()}, "object": {"key": str()}, "reason": reason}:  # EventBridge's detail alone
            _require_created(reason, *_R2_CREATED, "POST Object")
            return _build_url("s3", record, ("bucket", "name"), ("object", "key"))
        case {"action": action, "object": {}}:
            _require_created(action, *_R2_CREATED)
            return _build_url("s3", record, ("bucket",), ("object", "key"))
        case {"kind": "storage#object"}:
            return _parse_google_url(record)
        case {"message": {"attributes": {"eventType": event_type} as attributes}}:
            _require_created(event_type, "OBJECT_FINALIZE")
            return _build_url("gs", attributes, ("bucketId",), ("objectId",), within="message.attributes.")
        case {"specversion": _, "type": str(event_type), "data": data} if event_type.startswith(
            "google.cloud.storage."
        ):
            _require_created(event_type, "google.cloud.storage.object.v1.finalized")
            return _parse_google_url(data)
        case {"specversion": _, "type": event_type} | {"eventType": event_type, "subject": _}:
            _require_created(event_type, "Microsoft.Storage.BlobCreated")
            return _parse_azure_url(record)
    return _parse_s3_url(record)


def _parse_s3_url(record: object) -> str:
    event_name = _get_text(record, "eventName").removeprefix("s3:")
    if not event_name.startswith("ObjectCreated"):
        raise NoFileToRead(f"event {event_name[:_MAX_QUOTED_EVENT_CHARACTERS]} creates no object")
    bucket, key = _get_text(record, "s3", "bucket", "name"), _get_text(record, "s3", "object", "key")
    from_ceph = isinstance(record, Mapping) and record.get("eventSource") == "ceph:s3"
    return f"s3://{bucket}/{key if from_ceph else unquote_plus(key)}"


def _parse_google_url(resource: object) -> str:
    if isinstance(resource, Mapping) and "timeDeleted" in resource:
        raise NoFileToRead("the object was deleted")
    return _build_url("gs", resource, ("bucket",), ("name",))


def _parse_azure_url(record: object) -> str:
    """Return the URL in the subject, which is not percent-encoded, unlike ``data.url``."""
    container, slash, blob = _get_text(record, "subject").removeprefix(_AZURE_CONTAINERS).partition("/blobs/")
    if not slash:
        raise InvalidField("subject", "names no blob, so this is not an event of Azure Blob Storage")
    return f"az://{container}/{blob}"


def _require_created(event_type: object, *created: str) -> None:
    """Raise ``NoFileToRead`` unless the type of an event is one of ``created``."""
    if not isinstance(event_type, str):
        raise InvalidField("", "the type of the event is not text")
    if event_type not in created:
        raise NoFileToRead(f"event {event_type[:_MAX_QUOTED_EVENT_CHARACTERS]} creates no object")


def _build_url(scheme: str, record: object, bucket: tuple[str, ...], key: tuple[str, ...], *, within: str = "") -> str:
    return f"{scheme}://{_get_text(record, *bucket, within=within)}/{_get_text(record, *key, within=within)}"


def _get_text(record: object, *path: str, within: str = "") -> str:
    """Return the text at a path of members. Raises ``InvalidField`` if there is no text."""
    value = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str):
        raise InvalidField(within + ".".join(path), "is missing, so this is not an event of an object store")
    return value
