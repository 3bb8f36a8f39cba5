"""Tests of messages: what is accepted, what is refused and why, and which files are never read."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.model import Enqueued, Pair
from harvester.sources.fields import InvalidField
from harvester.sources.message import MAX_MESSAGE_BYTES, Message, MessageParser, format_reason

SENT = datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()
LATEST = SENT + 86_400
PARSER = MessageParser(("eu",), ("s3://lists/braze", "gs://other/"))
PAIR = {"campaign_id": "c", "send_id": "s"}


def parse(message, parser=PARSER):
    """Parse a message, given as a value or as bytes."""
    return parser.parse(message if isinstance(message, bytes) else json.dumps(message).encode(), latest=LATEST)


def rejection(message, parser=PARSER):
    """Return the reason why a message is rejected."""
    with pytest.raises(InvalidField) as error:
        parse(message, parser)
    return format_reason(error.value)


def s3_event(key, name="ObjectCreated:Put", bucket="lists"):
    """S3's notification, as its documentation shows it (version 2.1)."""
    record = {
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
        "eventTime": "2026-11-20T08:00:00.000Z", "eventName": name,
        "userIdentity": {"principalId": "AWS:AIDA"}, "requestParameters": {"sourceIPAddress": "203.0.113.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "lists",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A3"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6DC"},
        },
    }  # fmt: skip
    return {"Records": [record]}


def test_version_1_has_three_forms():
    """One pair, a list of pairs, a file; each may request a historical capture."""
    pair = Pair("eu", "c", "s")
    assert parse({"version": 1} | PAIR) == Message(pairs=(Enqueued(pair),))
    full = PAIR | {"sent_at": "2026-11-20T09:00:00+01:00", "workspace": "eu"}
    other = PAIR | {"send_id": "t"}
    assert parse({"version": 1, "pairs": [full, other], "once": True}) == Message(
        pairs=(Enqueued(pair, SENT), Enqueued(pair._replace(send_id="t"))), once=True
    )
    assert parse({"version": 1, "file": "s3://lists/braze/a/b c.csv"}).files == ("s3://lists/braze/a/b c.csv",)


def test_a_time_without_a_zone_is_utc_and_counted():
    """The count lets the trigger log a warning."""
    message = parse({"version": 1, "sent_at": "2026-11-20T08:00:00"} | PAIR)
    assert (message.pairs[0].sent_at, message.naive_times) == (SENT, 1)


def test_invalid_pairs_of_a_list_become_a_message_of_their_own():
    """It contains them as they were received, and can be corrected and sent again."""
    bad = [{"campaign_id": "c"}, 7, PAIR | {"sendid": "s"}, PAIR | {"workspace": "us"}]
    message = parse({"version": 1, "once": True, "pairs": [PAIR, *bad]})
    body, reason = message.encode_invalid_parts()
    assert len(message.pairs) == 1
    assert json.loads(body) == {"version": 1, "once": True, "pairs": bad}
    for expected in (
        "pair 2: send_id is missing",
        "pair 3: it is not an object",
        "pair 4: sendid is unknown",
        "pair 5: workspace",
    ):
        assert expected in reason


def test_an_s3_event_names_the_created_object():
    """Keys are form-encoded; SNS may wrap the event; a test event requests nothing."""
    for event in (s3_event("braze/a%2Bb+c%C3%A9.csv"), s3_event("braze/a%2Bb+c%C3%A9.csv", "ObjectCreated:Copy")):
        wrapped = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(event)}
        for content in (event, wrapped):
            assert parse(content).files == ("s3://lists/braze/a+b c\N{LATIN SMALL LETTER E WITH ACUTE}.csv",)
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-20T08:00:00.000Z", "Bucket": "lists"}
    assert parse(test) == Message()


CSV, PLUS = "s3://lists/braze/a b.csv", "s3://lists/braze/a+b.csv"
EVENTBRIDGE = {
    "version": "0", "id": "0f5d6c9e", "detail-type": "Object Created", "source": "aws.s3", "account": "111122223333",
    "time": "2026-11-20T08:00:00Z", "region": "eu-central-1", "resources": ["arn:aws:s3:::lists"],
    "detail": {
        "version": "0", "bucket": {"name": "lists"}, "reason": "PutObject", "requester": "111122223333",
        "object": {"key": "braze/a b.csv", "size": 5, "etag": "b1946ac9", "version-id": "IYV3p45BT0", "sequencer": "0"},
    },
}  # fmt: skip
MINIO = {
    "EventName": "s3:ObjectCreated:Put", "Key": "lists/braze/a b.csv",
    "Records": [{
        "eventVersion": "2.0", "eventSource": "minio:s3", "awsRegion": "", "eventTime": "2026-11-20T08:00:00.000Z",
        "eventName": "s3:ObjectCreated:Put", "userIdentity": {"principalId": "me"},
        "requestParameters": {"principalId": "me", "region": "", "sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "16", "x-minio-origin-endpoint": "http://127.0.0.1:9000"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "Config",
               "bucket": {"name": "lists", "ownerIdentity": {"principalId": "me"}, "arn": "arn:aws:s3:::lists"},
               "object": {"key": "braze%2Fa+b.csv", "size": 5, "eTag": "b1946ac9", "sequencer": "16E0"}},
        "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO (linux; amd64)"},
    }],
}  # fmt: skip
CEPH = {
    "Records": [{
        "eventVersion": "2.2", "eventSource": "ceph:s3", "awsRegion": "default", "eventName": "ObjectCreated:Put",
        "eventTime": "2026-11-20T08:00:00.000Z", "userIdentity": {"principalId": "me"},
        "requestParameters": {"sourceIPAddress": ""}, "responseElements": {"x-amz-request-id": "9", "x-amz-id-2": "4"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "lists",
               "bucket": {"name": "lists", "ownerIdentity": {"principalId": "me"}, "arn": "arn:aws:s3:::lists"},
               "object": {"key": "braze/a+b.csv", "size": 5, "eTag": "b1", "versionId": "", "sequencer": "F7",
                          "metadata": [], "tags": []}},
        "eventId": "1574430455.124", "opaqueData": "",
    }],
}  # fmt: skip
R2 = {
    "account": "3f4b7e3d", "action": "PutObject", "bucket": "lists", "eventTime": "2026-11-20T08:00:00.379Z",
    "object": {"key": "braze/a+b.csv", "size": 5, "eTag": "b1946ac9"},
}  # fmt: skip
RESOURCE = {"kind": "storage#object", "id": "other/a b.csv/1", "name": "a b.csv", "bucket": "other", "size": "5"}
BLOB = "/blobServices/default/containers/blobs/blobs/a b.csv"


@pytest.mark.parametrize(
    ("content", "url"),
    [
        (s3_event("braze/a+b.csv"), CSV),
        (s3_event("braze/a%2Bb.csv"), PLUS),
        (s3_event("braze/a+b.csv")["Records"][0], CSV),
        (EVENTBRIDGE, CSV),
        (EVENTBRIDGE["detail"], CSV),
        (MINIO, CSV),
        ([{"Event": MINIO["Records"], "EventTime": "2026-11-20T08:00:00Z"}], CSV),
        (CEPH, PLUS),
        (R2, PLUS),
        (R2 | {"action": "CompleteMultipartUpload"}, PLUS),
        (RESOURCE, "gs://other/a b.csv"),
        ({"specversion": "1.0", "type": "google.cloud.storage.object.v1.finalized", "data": RESOURCE},
         "gs://other/a b.csv"),
        ({"message": {"attributes": {"bucketId": "other", "objectId": "a b.csv", "eventType": "OBJECT_FINALIZE"},
                      "data": "e30=", "messageId": "1"}, "subscription": "s"}, "gs://other/a b.csv"),
        ([{"topic": "/subscriptions/1", "subject": BLOB, "eventType": "Microsoft.Storage.BlobCreated", "id": "1",
           "data": {"api": "PutBlob", "url": "https://x.blob.core.windows.net/blobs/a%20b"}}], "az://blobs/a b.csv"),
        ({"specversion": "1.0", "type": "Microsoft.Storage.BlobCreated", "subject": BLOB, "data": {}},
         "az://blobs/a b.csv"),
    ],
)  # fmt: skip
def test_the_event_of_every_store_names_its_file(content, url):
    """As each store sends it, bare or through SNS. The key is decoded as each store encodes it."""
    parser = MessageParser(("eu",), ("s3://lists/braze", "gs://other/", "az://blobs"))
    sns = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(content)}
    for body in (content, sns, sns | {"Message": json.dumps(sns)}):
        assert parse(body, parser).files == (url,)


@pytest.mark.parametrize(
    "content",
    [
        s3_event("braze/a.csv", "ObjectRemoved:Delete"),
        s3_event("braze/a.csv", "s3:ObjectAccessed:Get"),
        s3_event("braze/"),
        s3_event("braze/day%2F"),
        s3_event("braze/day_%24folder%24"),
        s3_event("braze/_SUCCESS"),
        s3_event("braze/.a.csv.crc"),
        s3_event("braze/_temporary/0/a.csv"),
        EVENTBRIDGE | {"detail-type": "Object Deleted"},
        R2 | {"action": "DeleteObject"},
        R2 | {"action": "LifecycleDeletion"},
        RESOURCE | {"timeDeleted": "2026-11-20T08:00:00Z"},
        {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "subject": "", "data": {}},
    ],
)
def test_events_that_create_no_file_are_skipped(content):
    """Removals, folders, markers and temporary files are neither read nor dead letters."""
    message = parse(content)
    assert message == Message()
    assert len(message.skipped) == 1


def test_valid_records_of_an_event_are_accepted():
    """The invalid ones become an event of their own, which can be corrected and sent again."""
    records = [s3_event(key)["Records"][0] for key in ("braze/_SUCCESS", "braze/a.csv", "other/b.csv", "braze/c.txt")]
    message = parse({"Records": [*records, 7, records[1]]})
    assert message.files == ("s3://lists/braze/a.csv",)
    assert message.skipped == ("s3://lists/braze/_SUCCESS is a marker or a hidden file",)
    body, reason = message.encode_invalid_parts()
    assert json.loads(body) == {"Records": [records[2], records[3], 7]}
    assert reason.startswith("record 3: file is not below any of the prefixes")
    body, reason = message.encode_invalid_parts({"s3://lists/braze/a.csv": "it is gone"})
    assert json.loads(body)["Records"][-1] == records[1]
    assert reason.endswith("; it is gone")
    corrected = json.dumps({"Records": [s3_event("braze/b.csv")["Records"][0]]}).encode()
    assert parse(corrected).files == ("s3://lists/braze/b.csv",)


def test_many_invalid_parts_take_little_memory():
    """Only the first reasons are kept: a message of one MiB may have half a million invalid parts."""
    message = parse(b'{"version": 1, "pairs": [' + b"7," * 20_000 + b"7]}")
    assert len(message.bad) == 20_001
    assert sum(len(reason) for _, reason in message.bad) < 1000
    assert message.encode_invalid_parts()[1].count(";") == 9


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b" " * MAX_MESSAGE_BYTES + b" ", "bytes; at most 1048576 are read"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (PAIR, "version is missing"),
        ({"version": 2} | PAIR, "version must be 1"),
        ({"version": True} | PAIR, "version must be 1"),
        ({"version": "1"} | PAIR, "version must be 1"),
        ({"version": 1}, "campaign_id is missing"),
        ({"version": 1, "campaign_id": "c"}, "send_id is missing"),
        ({"version": 1, "campaign_id": "c", "send_id": "a\0b"}, "printable ASCII"),
        ({"version": 1, "campaign_id": "c", "send_id": 7}, "leading zeros"),
        ({"version": 1, "extra": 1} | PAIR, "extra is unknown"),
        ({"version": 1, "pairs": []}, "at least one"),
        ({"version": 1, "pairs": PAIR}, "must be a list"),
        ({"version": 1, "pairs": [PAIR]} | PAIR, "more than one of"),
        ({"version": 1, "pairs": [PAIR], "file": "s3://lists/braze/a.csv"}, "more than one of"),
        ({"version": 1, "once": "yes"} | PAIR, "once must be true or false"),
        ({"version": 1, "sent_at": "2027-01-01"} | PAIR, "future"),
        ({"Records": []}, "at least one record"),
        ({"Records": [{"eventName": "ObjectCreated:Put"}]}, "s3.bucket.name is missing"),
        ({"Records": [7, {"eventName": "ObjectCreated:Put"}]}, "record 1: eventName is missing"),
        (EVENTBRIDGE | {"detail": {}}, "detail.bucket.name is missing"),
        (R2 | {"object": {"key": "braze/a%20b.csv"}}, "file must not contain %"),
        ({"eventType": "Microsoft.Storage.BlobCreated", "subject": "x"}, "subject names no blob"),
        ({"Type": "SubscriptionConfirmation", "Message": "You have chosen"}, "version is missing"),
    ],
)
def test_an_invalid_message_is_refused_with_a_reason(content, expected):
    """Nothing is guessed, and a message that is too long is not parsed."""
    assert expected in rejection(content)


@pytest.mark.parametrize(
    "url",
    [
        "s3://lists/brazen/a.csv",
        "s3://lists/a.csv",
        "s3://lists/braze",
        "s3://list/braze/a.csv",
        "s3://LISTS/braze/a.csv",
        "gs://lists/braze/a.csv",
        "s3://lists/braze/../a.csv",
        "s3://lists/braze/./a.csv",
        "s3://lists/braze//a.csv",
        "s3://lists/braze/%2e%2e/a.csv",
        "s3://lists/braze/a%2fb.csv",
        "s3://lists/braze\\..\\a.csv",
        "s3://lists/braze/a.csv?versionId=1",
        "s3://lists/braze/x#/a.csv",
        "s3://x@lists/braze/a.csv",
        "s3://lists:443/braze/a.csv",
        "s3://lists/braze/a\n.csv",
        "s3://lists/braze/a\u202e.csv",
        "s3://lists/braze/folder/",
        "s3://lists/braze/a.avro",
        "s3://lists/braze/a.csv.gz",
        "http://169.254.169.254/a.csv",
        "file:///etc/passwd",
        "/etc/pairs.csv",
        "-",
        "",
        None,
        7,
    ],
)
def test_a_file_outside_the_prefixes_or_with_an_ambiguous_name_is_refused(url):
    """Neither a name that only begins like a prefix nor one that can be read in two ways is accepted."""
    assert rejection({"version": 1, "file": url}).startswith("file ")


def test_a_key_of_an_s3_event_is_checked_after_it_is_decoded():
    """The same rules apply as for a file in a message."""
    for key in ("braze/%2e%2e/a.csv", "braze%2F..%2Fa.csv", "brazen/a.csv", "braze/a%252fb.csv"):
        assert rejection(s3_event(key)).startswith("file ")


def test_no_file_is_accepted_without_prefixes():
    """Files must be enabled by a setting."""
    assert "not below any of the prefixes" in rejection(
        {"version": 1, "file": "s3://lists/braze/a.csv"}, MessageParser(("eu",), ())
    )


NAMES = ["version", "once", "pairs", "file", "campaign_id", "send_id", "sent_at", "workspace"]
NAMES += ["Records", "Type", "Message", "Event", "s3", "bucket", "object", "key", "name", "detail", "detail-type"]
NAMES += ["action", "kind", "message", "attributes", "specversion", "type", "data", "subject", "eventType", "reason"]
WORDS = [1, True, "Notification", "s3:TestEvent", "ObjectCreated:Put", "Object Created", "PutObject", "storage#object"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*NAMES, "eventName"]), inner | st.sampled_from(WORDS), max_size=6)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200) | JSON.map(lambda content: json.dumps(content).encode()))
def test_any_message_is_accepted_or_refused(body):
    """Accepted messages contain only configured workspaces and files below the prefixes."""
    try:
        message = PARSER.parse(body, latest=LATEST)
    except InvalidField:
        return
    assert all(each.pair.workspace == "eu" for each in message.pairs)
    assert all(url.startswith(("s3://lists/braze/", "gs://other/")) for url in message.files)
    if message.bad:
        (parts,) = (
            value for value in json.loads(message.encode_invalid_parts()[0]).values() if isinstance(value, list)
        )
        assert len(parts) == len(message.bad)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"version": 1, "campaign_id": "c", "campaign_id": "d", "send_id": "s"}', "campaign_id"),
        (b'{"version": 1, "campaign_id": "c", "campaign\\u005fid": "d", "send_id": "s"}', "campaign_id"),
        (b'{"version": 2, "version": 1, "campaign_id": "c", "send_id": "s"}', "version"),
        (b'{"version": 1, "pairs": [{"campaign_id": "c", "send_id": "s", "send_id": "t"}]}', "send_id"),
        (b'{"version": 1, "pairs": [], "pairs": [{"campaign_id": "c", "send_id": "s"}]}', "pairs"),
        (b'{"Type": "Notification", "Message": "{\\"version\\":1,\\"file\\":\\"a\\",\\"file\\":\\"b\\"}"}', "file"),
    ],
)
def test_a_member_that_is_named_twice_is_refused(body, named):
    """Either could be meant, and a parser would silently keep the last one."""
    assert rejection(body) == f"{named} is named twice in one object; leave one of them out"


def test_a_value_written_with_escapes_is_read():
    """Escapes only cause a second parse."""
    body = b'{"version": 1, "campaign_id": "c\\u0022\\u0041", "send_id": "a\\"b"}'
    assert parse(body).pairs == (Enqueued(Pair("eu", 'c"A', 'a"b')),)
