"""Tests of the events of object stores: which object each event reports."""

import json

import pytest

from harvester.sources.messages.message import Message, MessageParser
from tests.support.messages import EVENTBRIDGE, R2, create_s3_event, get_rejection_reason, parse


def test_an_s3_event_names_the_created_object():
    """The key is form-encoded, and SNS may wrap the event. A test event names no object."""
    for event in (
        create_s3_event("braze/a%2Bb+c%C3%A9.csv"),
        create_s3_event("braze/a%2Bb+c%C3%A9.csv", "ObjectCreated:Copy"),
    ):
        wrapped = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(event)}
        for content in (event, wrapped):
            assert parse(content).files == ("s3://lists/braze/a+b c\N{LATIN SMALL LETTER E WITH ACUTE}.csv",)
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-20T08:00:00.000Z", "Bucket": "lists"}
    assert parse(test) == Message()


CSV, PLUS = "s3://lists/braze/a b.csv", "s3://lists/braze/a+b.csv"
MINIO = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "lists/braze/a b.csv",
    "Records": [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "awsRegion": "",
            "eventTime": "2026-11-20T08:00:00.000Z",
            "eventName": "s3:ObjectCreated:Put",
            "userIdentity": {"principalId": "me"},
            "requestParameters": {"principalId": "me", "region": "", "sourceIPAddress": "127.0.0.1"},
            "responseElements": {"x-amz-request-id": "16", "x-minio-origin-endpoint": "http://127.0.0.1:9000"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "Config",
                "bucket": {"name": "lists", "ownerIdentity": {"principalId": "me"}, "arn": "arn:aws:s3:::lists"},
                "object": {"key": "braze%2Fa+b.csv", "size": 5, "eTag": "b1946ac9", "sequencer": "16E0"},
            },
            "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO (linux; amd64)"},
        }
    ],
}
CEPH = {
    "Records": [
        {
            "eventVersion": "2.2",
            "eventSource": "ceph:s3",
            "awsRegion": "default",
            "eventName": "ObjectCreated:Put",
            "eventTime": "2026-11-20T08:00:00.000Z",
            "userIdentity": {"principalId": "me"},
            "requestParameters": {"sourceIPAddress": ""},
            "responseElements": {"x-amz-request-id": "9", "x-amz-id-2": "4"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "lists",
                "bucket": {"name": "lists", "ownerIdentity": {"principalId": "me"}, "arn": "arn:aws:s3:::lists"},
                "object": {
                    "key": "braze/a+b.csv",
                    "size": 5,
                    "eTag": "b1",
                    "versionId": "",
                    "sequencer": "F7",
                    "metadata": [],
                    "tags": [],
                },
            },
            "eventId": "1574430455.124",
            "opaqueData": "",
        }
    ],
}
RESOURCE = {"kind": "storage#object", "id": "other/a b.csv/1", "name": "a b.csv", "bucket": "other", "size": "5"}
BLOB = "/blobServices/default/containers/blobs/blobs/a b.csv"


@pytest.mark.parametrize(
    ("content", "url"),
    [
        (create_s3_event("braze/a+b.csv"), CSV),
        (create_s3_event("braze/a%2Bb.csv"), PLUS),
        (create_s3_event("braze/a+b.csv")["Records"][0], CSV),
        (EVENTBRIDGE, CSV),
        (EVENTBRIDGE["detail"], CSV),
        (MINIO, CSV),
        ([{"Event": MINIO["Records"], "EventTime": "2026-11-20T08:00:00Z"}], CSV),
        (CEPH, PLUS),
        (R2, PLUS),
        (R2 | {"action": "CompleteMultipartUpload"}, PLUS),
        (RESOURCE, "gs://other/a b.csv"),
        (
            {"specversion": "1.0", "type": "google.cloud.storage.object.v1.finalized", "data": RESOURCE},
            "gs://other/a b.csv",
        ),
        (
            {
                "message": {
                    "attributes": {"bucketId": "other", "objectId": "a b.csv", "eventType": "OBJECT_FINALIZE"},
                    "data": "e30=",
                    "messageId": "1",
                },
                "subscription": "s",
            },
            "gs://other/a b.csv",
        ),
        (
            [
                {
                    "topic": "/subscriptions/1",
                    "subject": BLOB,
                    "eventType": "Microsoft.Storage.BlobCreated",
                    "id": "1",
                    "data": {"api": "PutBlob", "url": "https://x.blob.core.windows.net/blobs/a%20b"},
                }
            ],
            "az://blobs/a b.csv",
        ),
        (
            {"specversion": "1.0", "type": "Microsoft.Storage.BlobCreated", "subject": BLOB, "data": {}},
            "az://blobs/a b.csv",
        ),
    ],
)
def test_the_event_of_every_store_names_its_file(content, url):
    """The event has the form in which each store sends it, directly or through SNS. So has the encoding of the key."""
    parser = MessageParser(("eu",), ("s3://lists/braze", "gs://other/", "az://blobs"))
    sns = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(content)}
    for body in (content, sns, sns | {"Message": json.dumps(sns)}):
        assert parse(body, parser).files == (url,)


@pytest.mark.parametrize(
    "content",
    [
        create_s3_event("braze/a.csv", "ObjectRemoved:Delete"),
        create_s3_event("braze/a.csv", "s3:ObjectAccessed:Get"),
        create_s3_event("braze/"),
        create_s3_event("braze/day%2F"),
        create_s3_event("braze/day_%24folder%24"),
        create_s3_event("braze/_SUCCESS"),
        create_s3_event("braze/.a.csv.crc"),
        create_s3_event("braze/_temporary/0/a.csv"),
        EVENTBRIDGE | {"detail-type": "Object Deleted"},
        R2 | {"action": "DeleteObject"},
        R2 | {"action": "LifecycleDeletion"},
        RESOURCE | {"timeDeleted": "2026-11-20T08:00:00Z"},
        {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "subject": "", "data": {}},
    ],
)
def test_events_that_create_no_file_are_skipped(content):
    """Removals, folders, markers and temporary files cause neither an import nor a dead letter."""
    message = parse(content)
    assert message == Message()
    assert len(message.skipped) == 1


def test_valid_records_of_an_event_are_accepted():
    """The invalid records become a separate event, which a user can correct and send again."""
    records = [
        create_s3_event(key)["Records"][0] for key in ("braze/_SUCCESS", "braze/a.csv", "other/b.csv", "braze/c.html")
    ]
    message = parse({"Records": [*records, 7, records[1]]})
    assert message.files == ("s3://lists/braze/a.csv",)
    assert message.skipped == ("s3://lists/braze/_SUCCESS is a marker or a hidden file",)
    body, reason = message.encode_invalid_parts()
    assert json.loads(body) == {"Records": [records[2], records[3], 7]}
    assert reason.startswith("record 3: file is not below any of the prefixes")
    body, reason = message.encode_invalid_parts({"s3://lists/braze/a.csv": "it is gone"})
    assert json.loads(body)["Records"][-1] == records[1]
    assert reason.endswith("; it is gone")
    corrected = json.dumps({"Records": [create_s3_event("braze/b.csv")["Records"][0]]}).encode()
    assert parse(corrected).files == ("s3://lists/braze/b.csv",)


def test_a_key_of_an_s3_event_is_checked_after_it_is_decoded():
    """The rules are the same as for a file in a message."""
    for key in ("braze/%2e%2e/a.csv", "braze%2F..%2Fa.csv", "brazen/a.csv", "braze/a%252fb.csv"):
        assert get_rejection_reason(create_s3_event(key)).startswith("file ")
