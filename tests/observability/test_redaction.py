"""Tests that no text from outside shows a secret in any encoding, or breaks a log line."""

import asyncio
import base64
import html
import json
import logging
import random
from urllib.parse import quote

import pytest
import structlog

from harvester.braze.client import Client
from harvester.braze.pacer import Pacer
from harvester.braze.transport import BrazeTransport
from harvester.clock import SystemClock
from harvester.errors import ExchangeError
from harvester.formatting import safe_text
from harvester.model import Pair, Reading
from harvester.observability import logs
from harvester.observability.redaction import MASK, register_secret, register_url_secrets, scrub, scrub_foreign
from tests.braze.test_transport import send_request
from tests.conftest import KEY
from tests.support.faulty_server import answer_with, build_response, read_request, serve_script

KEYS = ("3f2b8c1e-55aa-4d2e-9b1f-0c9d8e7f6a5b", 'ab"c/d\\e<f>&-Zq9-XkX7-0123-LMNOPQ')


def list_encodings(secret: str) -> list[str]:
    """Return a secret with the escapes of JSON, HTML, URLs and Python, once and twice, as hex, and its halves."""
    data = secret.encode()
    encodings = [
        secret,
        secret.upper(),
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        json.dumps(json.dumps(secret))[3:-3],
        html.escape(secret),
        html.escape(html.escape(secret)),
        quote(secret, safe=""),
        quote(secret).lower(),
        quote(quote(secret, safe=""), safe=""),
        data.hex(),
        data.hex().upper(),
        secret[: len(secret) // 2 + 1],
        secret[len(secret) // 2 - 1 :],
    ]
    # Escapes of every character, even of those that need none.
    forms = ("%{:02x}", "%25{:02X}", "\\u{:04X}", "\\\\u{:04x}", "\\x{:02x}", "&#{};", "&#x{:X};", "\\{:03o}")
    return encodings + ["".join(form.format(ord(letter)) for letter in secret) for form in forms]


@pytest.mark.parametrize("key", KEYS)
def test_a_secret_is_masked_in_every_encoding_and_the_text_around_it_stays(key):
    """A half of a secret is masked too, and so are escapes of characters that need none."""
    register_secret(key)
    for encoded_key in list_encodings(key):
        assert scrub(f"é before {encoded_key} after") == f"é before {MASK} after", encoded_key
        assert scrub_foreign(f"'{encoded_key}'\n").endswith("'\\n"), encoded_key
        assert safe_text(f"{encoded_key} after") == f"{MASK} after", encoded_key
    for before in ("", "x:", "Bearer "):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(f"{before}{key}!".encode()).decode()
            unmasked = scrub(f"({encoded})").replace(MASK, "")
            assert len(unmasked) < 14 + len(before) * 2, unmasked


def test_the_secrets_of_urls_are_masked_and_user_names_are_not():
    """They may be escaped, belong to one of several servers, or be part of a URL that is not registered."""
    register_url_secrets("amqp://harvester:pa/ss#w?ord-1@rabbit.example/vhost")
    register_url_secrets("nats://a:first-one%21@h1:4222,nats://token-of-nats-99@h2:4222")
    register_url_secrets("redis://h/0?password=in-the-query-7")
    text = "no: pa/ss#w?ord-1, pa/ss#w?o, first-one!, first-one%21, token-of-nats-99, in-the-query-7; harvester"
    assert scrub(text) == f"no: {MASK}, {MASK}, {MASK}, {MASK}, {MASK}, {MASK}; harvester"
    assert scrub("cannot reach https://u:never-seen@h/x") == "cannot reach https://***@h/x"


def test_a_short_secret_is_masked_as_a_separate_word():
    """Masking it inside words would make every text unreadable, and would reveal the secret."""
    register_secret("ghost")
    register_secret("a")
    assert scrub("access refused for user 'x' with 'ghost': a ghostly ghost-host") == (
        f"access refused for user 'x' with '{MASK}': a ghostly {MASK}-host"
    )


def test_a_new_secret_is_masked_among_thousands_and_in_a_text_that_was_seen_before():
    """The results for earlier texts do not outlive the registration of a secret."""
    secrets = [random.Random(number).randbytes(16).hex() for number in range(500)]
    text = f"key %{ord(secrets[-1][0]):x}{secrets[-1][1:]}, pin pin-42"
    assert scrub(text) == text
    for secret in (*secrets, "pin-42"):
        register_secret(secret)
    assert scrub(text) == f"key {MASK}, pin {MASK}"
    assert scrub(f"{secrets[0]} {secrets[1].upper()}") == f"{MASK} {MASK}"


class BrokenRepr:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        """Raise an error."""
        raise RuntimeError


@pytest.mark.parametrize("as_json", [True, False])
def test_no_event_breaks_the_log_and_no_line_shows_a_secret(capsys, as_json):
    """Each event is one line, even with surrogates, numbers beyond 64 bits, and values and names of any type."""
    register_secret(KEYS[0])
    before = structlog.get_config(), logging.getLogger().handlers
    try:
        logs.set_up_logs(json=as_json, level="info")
        log = structlog.get_logger()
        deep: list[object] = []
        for _ in range(2000):
            deep = [deep]
        values = [
            "\udcff\ud800",
            10**30,
            b"\xff",
            {1: 2},
            {"\udcff": 1},
            BrokenRepr(),
            deep,
            float("nan"),
            KEYS[0],
            "\n",
        ]
        for value in values:
            log.warning("event", value=value)
        log.warning("event", **{"a key": 1, "\udcff": KEYS[1].upper()})
        logging.getLogger("aiormq").warning("no login: %s", KEYS[0])
        logging.getLogger("nats").error("%d", "no number")
    finally:
        structlog.configure(**before[0])
        logging.getLogger().handlers = before[1]
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert len(lines) == len(values) + 3, err
    assert KEYS[0] not in err
    assert err.isascii() or not as_json
    if as_json:
        assert {json.loads(line)["event"] for line in lines} == {"event", "library_warned"}


def test_a_log_that_cannot_be_written_does_not_end_the_process(monkeypatch):
    """If the disk is full or the reader of the log has ended, only a log line is lost."""

    class FullDisk:
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(logs.sys, "stderr", FullDisk())
    stream = logs._Stderr()
    assert stream.write("line") == 4
    stream.flush()


@pytest.mark.parametrize("encode", [str, lambda key: "".join(f"\\u{ord(letter):04x}" for letter in key)])
async def test_a_response_that_contains_the_key_is_discarded(encode):
    """Rows contain the data that Braze sent, so a response that contains the key in any encoding is not stored."""
    body = json.dumps({"message": "success", "data": [{"time": "2026-11-01", "messages": {"sms": [{"x": "@"}]}}]})
    outcome, _ = await send_request(answer_with(build_response(body.replace("@", encode(KEY)).encode())))
    assert isinstance(outcome, ExchangeError)
    assert (outcome.cause, KEY in str(outcome)) == ("malformed", False)
    outcome, _ = await send_request(answer_with(build_response(body.encode())))
    assert outcome.status == 200


async def test_a_key_in_a_header_is_not_logged():
    """The id of a request may contain the key, plain or URL-encoded, or bytes that are not UTF-8."""
    ids = [KEY.encode(), KEY.replace("c", "%63").encode(), b"\xff\xfe"]

    async def script(reader, writer, server) -> None:
        while True:
            await read_request(reader, server)
            status = b"200 " if len(server.requests) <= len(ids) else b"401 "
            header = b"\r\nX-Request-Id: " + ids[min(len(server.requests), len(ids)) - 1]
            writer.write(b"HTTP/1.1 " + status + KEY.encode() + b"\r\nContent-Length: 2" + header + b"\r\n\r\n{}")
            await writer.drain()

    clock = SystemClock()
    async with serve_script(script) as server:
        transport = BrazeTransport(endpoint=server.url, api_key=KEY, connections=3, clock=clock)
        pacer = Pacer(reserve=0.2, max_rate=1e3, clock=clock, jitter=random.Random(1))
        client = Client(transport=transport, endpoint=server.url, pacer=pacer, clock=clock)
        reading = Reading(1, Pair("eu", "c", "s"), "once", clock.wall(), clock.wall() + 1e6, clock.wall())
        with structlog.testing.capture_logs() as captured:
            await asyncio.gather(*(client.capture(reading, get_batch_id=lambda: "b") for _ in ids))
        await transport.close()
    assert {each["request_id"] for each in captured if each["event"] == "response_unusable"} == {
        MASK,
        "\\udcff\\udcfe",
    }
    assert KEY not in repr(captured)
