"""Tests of messages: which are valid, why others are invalid, and which files are never read."""

import base64
import bz2
import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.model import Pair, SentPair
from harvester.sources.fields import InvalidField
from harvester.sources.messages.message import Message, MessageParser
from harvester.sources.messages.message_body import MAX_MESSAGE_BYTES
from tests.support.messages import EVENTBRIDGE, LATEST, PAIR, PARSER, R2, SENT, get_rejection_reason, parse


def test_version_1_has_three_forms():
    """A message contains one pair, a list of pairs, or a file. ``once`` requests one immediate reading."""
    pair = Pair("eu", "c", "s")
    assert parse({"version": 1} | PAIR) == Message(pairs=(SentPair(pair),))
    full = PAIR | {"sent_at": "2026-11-20T09:00:00+01:00", "workspace": "eu"}
    other = PAIR | {"send_id": "t"}
    assert parse({"version": 1, "pairs": [full, other], "once": True}) == Message(
        pairs=(SentPair(pair, SENT), SentPair(pair._replace(send_id="t"))), once=True
    )
    assert parse({"version": 1, "file": "s3://lists/braze/a/b c.csv"}).files == ("s3://lists/braze/a/b c.csv",)


ENCODE = {
    "gzip": gzip.compress,
    "base64": base64.encodebytes,
    "base64 of gzip": lambda body: base64.urlsafe_b64encode(gzip.compress(body)).rstrip(b"="),
    "byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "gzip of UTF-16": lambda body: gzip.compress(body.decode().encode("utf-16")),
}


@pytest.mark.parametrize("encode", ENCODE.values(), ids=ENCODE)
def test_an_encoded_message_is_decoded(encode):
    """Senders compress messages, and SQS accepts only text."""
    assert parse(encode(json.dumps({"version": 1} | PAIR).encode())).pairs == (SentPair(Pair("eu", "c", "s")),)


@pytest.mark.parametrize("names", [("campaignId", "sendId", "sentAt"), ("CAMPAIGN_API_ID", "Send-ID", "SENT_AT")])
def test_the_case_and_the_separators_of_names_do_not_matter(names):
    """Programs in Java and JavaScript write camel case."""
    pair = dict(zip(names, ("c", "s", SENT), strict=True))
    expected = (SentPair(Pair("eu", "c", "s"), SENT),)
    assert parse({"Version": 1, "Workspace": "eu"} | pair).pairs == expected
    assert parse({"version": 1, "Pairs": [pair]}).pairs == expected


def test_a_bare_array_is_a_list_of_pairs():
    """Its invalid pairs become a message of version 1."""
    message = parse([PAIR, 7])
    assert message.pairs == (SentPair(Pair("eu", "c", "s")),)
    assert json.loads(message.encode_invalid_parts()[0]) == {"version": 1, "pairs": [7]}


def test_a_time_without_a_zone_is_utc_and_counted():
    """The trigger uses the count to log a warning."""
    message = parse({"version": 1, "sent_at": "2026-11-20T08:00:00"} | PAIR)
    assert (message.pairs[0].sent_at, message.naive_times) == (SENT, 1)


def test_invalid_pairs_of_a_list_become_a_separate_message():
    """It contains the pairs as they were received, so a user can correct it and send it again."""
    bad = [{"campaign_id": "c"}, 7, PAIR | {"colour": "s"}, PAIR | {"workspace": "us"}]
    message = parse({"version": 1, "once": True, "pairs": [PAIR, *bad]})
    body, reason = message.encode_invalid_parts()
    assert len(message.pairs) == 1
    assert json.loads(body) == {"version": 1, "once": True, "pairs": bad}
    for expected in (
        "pair 2: send_id is missing",
        "pair 3: it is not an object",
        "pair 4: colour is unknown",
        "pair 5: workspace",
    ):
        assert expected in reason


def test_many_invalid_parts_take_little_memory():
    """A message of one MiB may have half a million invalid parts, so only the first ones have a reason."""
    message = parse(b'{"version": 1, "pairs": [' + b"7," * 20_000 + b"7]}")
    assert len(message.bad) == 20_001
    assert sum(len(reason) for _, reason in message.bad) < 1000
    assert message.encode_invalid_parts()[1].count(";") == 9


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b" " * MAX_MESSAGE_BYTES + b" ", "bytes; the limit is 1048576"),
        (b"\x1f\x8b\x08\x00", "begins as gzip, but its end is missing"),
        (b"\x1f\x8b" + b"x" * 20, "begins as gzip, but cannot be decompressed"),
        (gzip.compress(b" " * (MAX_MESSAGE_BYTES + 1)), "more than 1048576 bytes after decompression"),
        (base64.b64encode(b"not JSON"), "not JSON"),
        (zlib.compress(b"{}"), "is compressed with zlib, which is not read; compress it with gzip"),
        (base64.b64encode(bz2.compress(b"{}")), "is compressed with bzip2"),
        (b"[]", "at least one pair"),
        ({"version": 1, "sendId": "s"} | PAIR, "send_id is named twice"),
        (PAIR, "version is missing"),
        ({"version": 2} | PAIR, "version must be 1"),
        ({"version": True} | PAIR, "version must be 1"),
        ({"version": "1"} | PAIR, "version must be 1"),
        ({"version": 1}, "campaign_id is missing"),
        ({"version": 1, "campaign_id": "c"}, "send_id is missing"),
        ({"version": 1, "campaign_id": "c", "send_id": "a\0b"}, "printable ASCII"),
        ({"version": 1, "campaign_id": "c", "send_id": 7.5}, "not text or a whole number"),
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
    """The reason names the field and its problem, and a message that is too long is not parsed."""
    assert expected in get_rejection_reason(content)


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
        "s3://lists/braze/a.html",
        "s3://lists/braze/a.zip",
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
    """A name that only begins like a prefix is refused, and so is a name that can be read in two ways."""
    assert get_rejection_reason({"version": 1, "file": url}).startswith("file ")


def test_no_file_is_accepted_without_prefixes():
    """A user must allow files in the settings."""
    assert "not below any of the prefixes" in get_rejection_reason(
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
    """An accepted message contains only configured workspaces, and only files below the prefixes."""
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
    """A parser would silently use the last one, but only the user knows which one is right."""
    assert get_rejection_reason(body) == f"{named} is named twice in one object; remove one of them"


def test_a_value_written_with_escapes_is_read():
    """Escapes do not make a message invalid."""
    body = b'{"version": 1, "campaign_id": "c\\u0022\\u0041", "send_id": "a\\"b"}'
    assert parse(body).pairs == (SentPair(Pair("eu", 'c"A', 'a"b')),)
