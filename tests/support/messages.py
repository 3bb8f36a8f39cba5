"""Messages for tests, and functions that parse them."""

import json
from datetime import UTC, datetime

import pytest

from harvester.sources.fields import InvalidField
from harvester.sources.messages.message import MessageParser, format_reason

SENT = datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()
LATEST = SENT + 86_400
PARSER = MessageParser(("eu",), ("s3://lists/braze", "gs://other/"))
PAIR = {"campaign_id": "c", "send_id": "s"}


def parse(message, parser=PARSER):
    """Parse a message, given as a value or as bytes."""
    return parser.parse(message if isinstance(message, bytes) else json.dumps(message).encode(), latest=LATEST)


def get_rejection_reason(message, parser=PARSER):
    """Return the reason why a message is invalid."""
    with pytest.raises(InvalidField) as error:
        parse(message, parser)
    return format_reason(error.value)


def create_s3_event(key, name="ObjectCreated:Put", bucket="lists"):
    """Return a notification of S3 as in its documentation (version 2.1)."""
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-11-20T08:00:00.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "AWS:AIDA"},
        "requestParameters": {"sourceIPAddress": "203.0.113.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "lists",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A3"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6DC"},
        },
    }
    return {"Records": [record]}


EVENTBRIDGE = {
    "version": "0",
    "id": "0f5d6c9e",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2026-11-20T08:00:00Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:s3:::lists"],
    "detail": {
        "version": "0",
        "bucket": {"name": "lists"},
        "reason": "PutObject",
        "requester": "111122223333",
        "object": {"key": "braze/a b.csv", "size": 5, "etag": "b1946ac9", "version-id": "IYV3p45BT0", "sequencer": "0"},
    },
}
R2 = {
    "account": "3f4b7e3d",
    "action": "PutObject",
    "bucket": "lists",
    "eventTime": "2026-11-20T08:00:00.379Z",
    "object": {"key": "braze/a+b.csv", "size": 5, "eTag": "b1946ac9"},
}
