"""Requests to a hostile server: each ends with a complete response or an ``ExchangeError``."""

import asyncio
import base64
import contextlib
import gzip
import inspect
import re
import traceback
import zlib
from pathlib import Path

import aiohttp
import pytest
from aiohttp import client_exceptions

from harvester.braze.series import parse_days
from harvester.braze.transport import MAX_BODY_BYTES, BrazeTransport
from harvester.braze.transport_errors import translate_error
from harvester.clock import SystemClock
from harvester.errors import ExchangeError, ExitCode, Meaning, classify_status
from harvester.model import Pair
from harvester.settings.proxy import parse_proxy
from tests.support.faulty_server import answer_slowly, answer_with, build_response, read_request, serve_script
from tests.support.secret_canary import KEY, PROXY_PASSWORD

PAIR = Pair("default", "campaign", "send")
GOOD = b'{"message":"success","data":[{"time":"2026-11-01","messages":{}}]}'
OK = b"HTTP/1.1 200 OK\r\n"


def make_transport(url: str, *, timeout_seconds: float = 5.0) -> BrazeTransport:
    """Return the real transport, with a canary as its key."""
    return BrazeTransport(
        endpoint=url, api_key=KEY, connections=4, clock=SystemClock(), timeout_seconds=timeout_seconds
    )  # fmt: skip


async def send_request(script, *, timeout_seconds: float = 5.0, pair: Pair = PAIR):
    """Send one request; return the response or the error, and the server. A response must have a usable body."""
    async with serve_script(script) as server:
        transport = make_transport(server.url, timeout_seconds=timeout_seconds)
        try:
            response = await transport.send_series(pair, length_days=15, ending_at=1e9)
            if response.status == 200:
                parse_days(response.body)
        except ExchangeError as error:
            text = "".join(traceback.format_exception(error)) + repr(error) + str(error)
            assert KEY not in text
            return error, server
        finally:
            await transport.close()
        return response, server


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
BROKEN = {
    "nothing, then closed": answer_with(b""),
    "reset before a status": answer_with(b"", then="reset"),
    "reset in the body": answer_with(build_response(GOOD)[:-20], then="reset"),
    "closed in a body without length": answer_with(OK + b"\r\n" + GOOD[:-20]),
    "content-length too long": answer_with(build_response(GOOD).replace(b"Length: 6", b"Length: 9")),
    "chunk cut off": answer_with(CHUNKED + b"\r\n20\r\n" + GOOD[:16]),
    "chunk size no number": answer_with(CHUNKED + b"\r\nzz\r\n" + GOOD),
    "two content-lengths": answer_with(OK + b"Content-Length: 5\r\nContent-Length: 66\r\n\r\n" + GOOD),
    "length and chunks": answer_with(CHUNKED + b"Content-Length: 66\r\n\r\n" + GOOD),
    "gzip declared, plain sent": answer_with(build_response(GOOD, "Content-Encoding: gzip")),
    "gzip with a bad checksum": answer_with(
        build_response(gzip.compress(GOOD)[:-8] + b"12345678", "Content-Encoding: gzip")
    ),
    "a status line of garbage": answer_with(b"\x00\xff garbage\r\n\r\n"),
    "a header of a megabyte": answer_with(OK + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\n" + GOOD),
    "a hundred thousand headers": answer_with(OK + b"X: y\r\n" * 100_000 + b"\r\n" + GOOD),
    "only 100 Continue": answer_with(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "html": answer_with(build_response(b"<html>Just a moment...</html>")),
    "empty": answer_with(build_response(b"")),
    "an empty object": answer_with(build_response(b"{}")),
    "text behind": answer_with(build_response(GOOD + b"x")),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_response_is_a_transient_error(script):
    """A broken response neither captures nor rejects the pair, and its error does not contain the key."""
    outcome, _ = await send_request(script)
    assert isinstance(outcome, ExchangeError), outcome


async def test_a_gzip_body_cut_at_any_byte_is_an_error():
    """A gzip body that is cut at any byte is an error, although aiohttp accepts some of them."""
    data = gzip.compress(GOOD)
    for at in range(len(data)):
        outcome, _ = await send_request(answer_with(build_response(data[:at], "Content-Encoding: gzip")))
        assert isinstance(outcome, ExchangeError) or outcome.body == GOOD, at


@pytest.mark.parametrize(
    "script",
    [
        answer_with(b"", then="silence"),
        answer_with(build_response(GOOD)[:-5], then="silence"),
        answer_slowly(build_response(GOOD), 0.05),
        answer_slowly(OK + b"X: " + b"y" * 200, 0.05),
    ],
    ids=["silence", "silence in the body", "drip", "drip headers"],
)
async def test_the_timeout_bounds_the_whole_request(script):
    """A silent server and a very slow response end at the total timeout."""
    outcome, _ = await send_request(script, timeout_seconds=0.3)
    assert isinstance(outcome, ExchangeError)
    assert outcome.cause == "timeout"


async def test_a_gzip_bomb_is_discarded_at_the_limit():
    """A small body that decodes to a gigabyte is discarded once it is above the limit."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"0" * 1_000_000) for _ in range(3 * MAX_BODY_BYTES // 1_000_000)) + packer.flush()
    outcome, _ = await send_request(answer_with(build_response(bomb, "Content-Encoding: gzip")))
    assert isinstance(outcome, ExchangeError)
    assert outcome.cause == "oversized"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status):
    """A redirect does not send the key to another host."""
    async with serve_script(answer_with(build_response(GOOD))) as other:
        response, server = await send_request(
            answer_with(build_response(b"", f"Location: {other.url}/", status=status))
        )
        assert not isinstance(response, ExchangeError)
        assert classify_status(response.status) is Meaning.TRANSIENT
        assert len(server.requests) == 1
        assert not other.connections


async def test_a_request_is_not_resent_on_a_dead_connection():
    """Each call sends at most one request, since each costs quota; aiohttp would resend by itself."""

    async def once_then_dead(reader, writer, server) -> None:
        await read_request(reader, server)
        writer.write(build_response(GOOD))
        await writer.drain()
        await read_request(reader, server)
        writer.transport.abort()

    async with serve_script(once_then_dead) as server:
        transport = make_transport(server.url)
        await transport.send_series(PAIR, length_days=15, ending_at=1e9)
        with pytest.raises(ExchangeError):
            await transport.send_series(PAIR, length_days=15, ending_at=1e9)
        assert len(server.requests) == 2
        await transport.close()


async def test_surplus_bytes_are_not_the_next_response():
    """A body longer than its length does not change the next response on that connection."""
    async with serve_script(
        answer_with(build_response(GOOD) + build_response(b'{"message":"success","data":[1]}'), then="keep")
    ) as server:
        transport = make_transport(server.url)
        for _ in range(3):
            try:
                response = await transport.send_series(PAIR, length_days=15, ending_at=1e9)
            except ExchangeError:
                continue
            assert response.body == GOOD
        await transport.close()


async def test_an_unrequested_response_is_never_returned():
    """What a server sends by itself on a kept-alive connection is never the response for the next pair."""
    unasked = asyncio.Event()

    async def script(reader, writer, server) -> None:
        await read_request(reader, server)
        writer.write(build_response(GOOD))
        await writer.drain()
        if len(server.requests) == 1:
            await unasked.wait()
            writer.write(build_response(b'{"message":"success","data":[]}'))
            await writer.drain()
        await read_request(reader, server)
        writer.write(build_response(GOOD))
        await writer.drain()

    async with serve_script(script) as server:
        transport = make_transport(server.url)
        first = await transport.send_series(PAIR, length_days=15, ending_at=1e9)
        unasked.set()
        for _ in range(20):  # let it arrive
            await asyncio.sleep(0)
        try:
            second = await transport.send_series(PAIR, length_days=15, ending_at=1e9)
            assert second.body == GOOD
        except ExchangeError:
            pass  # an error is retried
        assert first.body == GOOD
        await transport.close()


async def test_proxy_and_netrc_of_the_environment_are_ignored(monkeypatch, tmp_path):
    """Requests go directly to the endpoint, so no proxy or netrc entry gets or changes the key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    response, server = await send_request(answer_with(build_response(GOOD)))
    assert response.body == GOOD
    assert f"Authorization: Bearer {KEY}".encode() in server.requests[0]


@pytest.mark.parametrize(
    ("send_id", "sent"),
    [
        ("a&length=1", b"a%26length%3D1"), ("a#b", b"a%23b"), ("a%00b", b"a%2500b"), ("a b", b"a%20b"),
        ("../../etc", b"..%2F..%2Fetc"), ("..", b".."), ("a\nb", b"a%0Ab"), ('a"b', b"a%22b"), ("a+b", b"a%2Bb"),
    ],
)  # fmt: skip
async def test_an_id_with_any_characters_is_one_value_of_the_query(send_id, sent):
    """No id becomes another parameter, a fragment or a second line."""
    _, server = await send_request(answer_with(build_response(GOOD)), pair=Pair("default", "c", send_id))
    line = server.requests[0].split(b"\r\n")[0]
    expected = (
        b"GET /sends/data_series?campaign_id=c&send_id=" + sent + b"&length=15&ending_at=2001-09-09T01%3A46%3A40Z"
    )
    assert line == expected + b" HTTP/1.1"


async def test_a_proxy_never_receives_the_key():
    """It receives a request for a tunnel, with its own password only. Requests to this machine do not use it."""
    refuse, answer = (
        answer_with(build_response(b"", status="403 Forbidden")),
        answer_with(build_response(GOOD), then="keep"),
    )
    proxy = f"http://someone:{PROXY_PASSWORD}@127.0.0.1"
    async with serve_script(refuse) as tunnel, serve_script(answer) as endpoint:
        for url in ("https://rest.fra-01.braze.eu", endpoint.url):
            transport = BrazeTransport(
                url, KEY, connections=1, clock=SystemClock(), proxy=parse_proxy(proxy + tunnel.url[16:])
            )
            with contextlib.suppress(ExchangeError):
                await transport.send_series(PAIR, length_days=15, ending_at=1e9)
            transport.use_key(f"{KEY}-new")
            with contextlib.suppress(ExchangeError):
                await transport.send_series(PAIR, length_days=15, ending_at=1e9)
            await transport.close()
    assert len(tunnel.requests) == len(endpoint.requests) == 2
    login = base64.b64encode(f"someone:{PROXY_PASSWORD}".encode())
    for request in tunnel.requests:
        assert request.startswith(b"CONNECT rest.fra-01.braze.eu:443 ")
        assert b"Proxy-Authorization: Basic " + login in request
        assert b"Bearer" not in request


async def test_a_failed_connection_is_a_transient_error():
    """A refused connection and an unknown name are reported in plain words."""
    expected_errors = {
        "http://127.0.0.1:9": ("connection_refused", "connection refused"),
        "http://no-such-host.invalid": ("name_not_found", "name not found"),
    }
    for url, expected in expected_errors.items():
        transport = make_transport(url)
        with pytest.raises(ExchangeError) as caught:
            await transport.send_series(PAIR, length_days=15, ending_at=1e9)
        assert (caught.value.cause, str(caught.value)) == expected
        await transport.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"oops \x1b[2J%b\r\n\r\n",
        OK + b"X-Echo: %b",
        OK + b"X-Echo: %b\x00\r\n\r\n",
        CHUNKED + b"\r\nzz%b\r\n",
        OK + b"Content-Length: %b\r\n\r\n",
    ],
)
async def test_an_error_does_not_quote_the_key_from_a_broken_head(reply):
    """The error quotes the head of the response without the key and without control characters."""
    error, _ = await send_request(answer_with(reply % KEY.encode()))
    assert isinstance(error, ExchangeError)
    assert KEY[:8] not in str(error)
    assert str(error).isprintable()


def test_every_error_of_aiohttp_has_a_translation():
    """No error of the client leaves the transport untranslated, and none contains the request's headers."""
    info = aiohttp.RequestInfo(url=None, method="GET", headers={"Authorization": KEY}, real_url=None)
    kinds = [kind for kind in vars(client_exceptions).values() if inspect.isclass(kind)]
    translated_kinds = set()
    for kind in kinds:
        if issubclass(kind, aiohttp.ClientResponseError):
            error = kind(info, (), status=400, message="bad")
        elif issubclass(kind, aiohttp.ClientError) and not issubclass(kind, aiohttp.ClientConnectorError):
            error = kind(*("x",) * (4 if kind is aiohttp.ServerFingerprintMismatch else 1))
        else:
            continue  # no error of the client, or made of a live connection and met above
        ours = translate_error(error)
        assert ours.cause in {"timeout", "tls", "disconnected", "truncated", "malformed", "network"}
        assert KEY not in repr(ours) + str(ours)
        translated_kinds.add(kind)
    assert len(translated_kinds) >= 15


def test_a_proxy_that_does_not_respond_is_named():
    """The same timeout without a proxy concerns the endpoint."""
    late = aiohttp.ConnectionTimeoutError("Connection timeout to host https://rest.fra-01.braze.eu")
    error = translate_error(late, parse_proxy("http://proxy.example:3128"))
    assert (error.cause, str(error)) == ("proxy_unreachable", "proxy unreachable: http://proxy.example:3128: timeout")
    assert translate_error(late).cause == "timeout"


def test_every_status_has_one_meaning():
    """Only 200 can be usable; only refusals of the pair reject it."""
    expected = dict.fromkeys(range(100, 600), Meaning.TRANSIENT)
    expected |= dict.fromkeys({*range(400, 500)} - {408}, Meaning.REJECTED)
    expected |= dict.fromkeys((401, 403, 415), Meaning.HALTED) | {200: Meaning.SUCCESS, 429: Meaning.THROTTLED}
    assert {status: classify_status(status) for status in range(100, 600)} == expected


def test_exit_codes_are_the_documented_ones():
    """The exit codes match the table in docs/configuration.md, because scripts depend on them."""
    readme = (Path(__file__).parent.parent.parent / "docs/configuration.md").read_text()
    words = "complete|bug|is invalid|partial|halted|storage|interrupted"
    documented = re.findall(rf"^\| (\d+) \| .*?({words})", readme, re.MULTILINE)
    assert [(int(code), word) for code, word in documented] == list(zip(ExitCode, words.split("|"), strict=True))


async def test_cancelling_a_request_ends_it():
    """A cancelled request ends at once, even if the server is silent."""
    async with serve_script(answer_with(b"", then="silence")) as server:
        transport = make_transport(server.url)
        task = asyncio.create_task(transport.send_series(PAIR, length_days=15, ending_at=1e9))
        while not server.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.close()


async def test_a_slow_name_resolution_does_not_block_others(monkeypatch):
    """A slow name resolution ends at the total timeout; meanwhile other requests continue."""
    loop = asyncio.get_running_loop()

    async def never(*_given: object, **_named: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(loop, "getaddrinfo", never)
    slow = make_transport("http://rest.example.invalid", timeout_seconds=0.3)
    response, _ = await send_request(answer_with(build_response(GOOD)))
    assert response.body == GOOD
    with pytest.raises(ExchangeError) as caught:
        await slow.send_series(PAIR, length_days=15, ending_at=1e9)
    assert caught.value.cause == "timeout"
    await slow.close()
