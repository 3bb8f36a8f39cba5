"""Messages: what is understood, what is refused and why, and which pointers are never followed."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.model import Enqueued, Pair
from harvester.sources.fields import Unusable
from harvester.sources.message import MAX_MESSAGE_BYTES, Message, Reader, reason

SENT = datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()
LATEST = SENT + 86_400
READER = Reader(("eu",), ("s3://lists/braze", "gs://other/"))
PAIR = {"campaign_id": "c", "send_id": "s"}


def read(told, reader=READER):
    """Read a message, given as what it says or as bytes."""
    return reader.read(told if isinstance(told, bytes) else json.dumps(told).encode(), latest=LATEST)


def refused(told, reader=READER):
    """Give the reason of a message that is not understood."""
    with pytest.raises(Unusable) as error:
        read(told, reader)
    return reason(error.value)


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


def test_the_three_spellings_of_version_1():
    """One pair, a list of pairs, a pointer; each may ask for a historical capture."""
    pair = Pair("eu", "c", "s")
    assert read({"version": 1} | PAIR) == Message(pairs=(Enqueued(pair),))
    full = PAIR | {"sent_at": "2026-11-20T09:00:00+01:00", "workspace": "eu"}
    assert read({"version": 1, "pairs": [full, PAIR], "once": True}) == Message(
        pairs=(Enqueued(pair, SENT), Enqueued(pair)), once=True
    )
    assert read({"version": 1, "file": "s3://lists/braze/a/b c.csv"}).files == ("s3://lists/braze/a/b c.csv",)


def test_a_time_without_a_zone_is_utc_and_counted():
    """So that it can be warned of."""
    message = read({"version": 1, "sent_at": "2026-11-20T08:00:00"} | PAIR)
    assert (message.pairs[0].sent_at, message.naive_times) == (SENT, 1)


def test_bad_pairs_of_a_list_become_a_message_of_their_own():
    """It holds them as they came, and is understood again once they are mended."""
    bad = [{"campaign_id": "c"}, 7, PAIR | {"sendid": "s"}, PAIR | {"workspace": "us"}]
    message = read({"version": 1, "once": True, "pairs": [PAIR, *bad]})
    body, why = message.leftover()
    assert len(message.pairs) == 1
    assert json.loads(body) == {"version": 1, "once": True, "pairs": bad}
    for said in ("pair 2: send_id: missing", "pair 3: is no object", "pair 4: sendid: is unknown", "pair 5: workspace"):
        assert said in why


def test_what_s3_tells_of_a_new_object():
    """Keys come encoded as a form's fields are; SNS may stand in between; a test event asks for nothing."""
    for event in (s3_event("braze/a%2Bb+c%C3%A9.csv"), s3_event("braze/a%2Bb+c%C3%A9.csv", "ObjectCreated:Copy")):
        wrapped = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(event)}
        for told in (event, wrapped):
            assert read(told).files == ("s3://lists/braze/a+b c\N{LATIN SMALL LETTER E WITH ACUTE}.csv",)
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-20T08:00:00.000Z", "Bucket": "lists"}
    assert read(test) == Message()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
        (b" " * MAX_MESSAGE_BYTES + b" ", "bytes; 1048576 are read"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (PAIR, "version: is missing"),
        ({"version": 2} | PAIR, "version: is not 1"),
        ({"version": True} | PAIR, "version: is not 1"),
        ({"version": "1"} | PAIR, "version: is not 1"),
        ({"version": 1}, "campaign_id: missing"),
        ({"version": 1, "campaign_id": "c"}, "send_id: missing"),
        ({"version": 1, "campaign_id": "c", "send_id": "a\0b"}, "without NUL"),
        ({"version": 1, "campaign_id": "c", "send_id": 7}, "leading zeros"),
        ({"version": 1, "extra": 1} | PAIR, "extra: is unknown"),
        ({"version": 1, "pairs": []}, "at least one"),
        ({"version": 1, "pairs": PAIR}, "must be a list"),
        ({"version": 1, "pairs": [PAIR]} | PAIR, "more than one of"),
        ({"version": 1, "pairs": [PAIR], "file": "s3://lists/braze/a.csv"}, "more than one of"),
        ({"version": 1, "once": "yes"} | PAIR, "once: must be true or false"),
        ({"version": 1, "sent_at": "2027-01-01"} | PAIR, "future"),
        ({"Records": []}, "at least one record"),
        ({"Records": [{"eventName": "ObjectCreated:Put"}]}, "s3.bucket.name: is missing"),
        ({"Type": "SubscriptionConfirmation", "Message": "You have chosen"}, "version: is missing"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_reason(told, said):
    """Nothing is guessed at, and what is too long is not even parsed."""
    assert said in refused(told)


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
def test_a_pointer_outside_the_prefixes_or_not_plain_is_never_followed(url):
    """Neither one that only begins like a prefix, nor one that could be read in two ways."""
    assert refused({"version": 1, "file": url}).startswith("file: ")


def test_the_same_holds_for_what_s3_tells():
    """A key is judged as it is named in the bucket, after its encoding is undone."""
    for key in ("braze/%2e%2e/a.csv", "braze%2F..%2Fa.csv", "brazen/a.csv", "braze/a%252fb.csv"):
        assert refused(s3_event(key)).startswith("file: ")


def test_without_prefixes_no_pointer_is_followed():
    """It is a choice to make."""
    assert "none of the prefixes" in refused({"version": 1, "file": "s3://lists/braze/a.csv"}, Reader(("eu",), ()))


NAMES = ["version", "once", "pairs", "file", "campaign_id", "send_id", "sent_at", "workspace"]
NAMES += ["Records", "Type", "Message", "Event", "s3", "bucket", "object", "key", "name"]
WORDS = [1, True, "Notification", "s3:TestEvent", "ObjectCreated:Put"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*NAMES, "eventName"]), inner | st.sampled_from(WORDS), max_size=6)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200) | JSON.map(lambda told: json.dumps(told).encode()))
def test_no_message_breaks_the_reader(body):
    """Whatever comes is understood or refused; what is understood names pairs and files that are allowed."""
    try:
        message = READER.read(body, latest=LATEST)
    except Unusable:
        return
    assert all(each.pair.workspace == "eu" for each in message.pairs)
    assert all(url.startswith(("s3://lists/braze/", "gs://other/")) for url in message.files)
    if message.bad:
        assert len(json.loads(message.leftover()[0])["pairs"]) == len(message.bad)
