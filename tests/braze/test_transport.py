"""One exchange on a hostile wire: whatever comes back, it is an answer read whole or an ``ExchangeError``."""

import asyncio
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
from tests.support.faulty_server import answer_slowly, answer_with, build_response, read_request, serve_script

KEY = "canary-key-0123456789"
PAIR = Pair("default", "campaign", "send")
GOOD = b'{"message":"success","data":[{"time":"2026-11-01","messages":{}}]}'
OK = b"HTTP/1.1 200 OK\r\n"


def transport_to(url: str, *, timeout_seconds: float = 5.0) -> BrazeTransport:
    """The real transport, a canary for its key."""
    return BrazeTransport(
        endpoint=url, api_key=KEY, connections=4, clock=SystemClock(), timeout_seconds=timeout_seconds
    )  # fmt: skip


async def asked(script, *, timeout_seconds: float = 5.0, pair: Pair = PAIR):
    """Ask once; gives the answer or the error, and the server. An answer counts only if it can be read as one."""
    async with serve_script(script) as server:
        transport = transport_to(server.url, timeout_seconds=timeout_seconds)
        try:
            answer = await transport.send_series(pair, length_days=15, ending_at=1e9)
            if answer.status == 200:
                parse_days(answer.body)
        except ExchangeError as error:
            shown = "".join(traceback.format_exception(error)) + repr(error) + str(error)
            assert KEY not in shown
            return error, server
        finally:
            await transport.close()
        return answer, server


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
    "gzip said, plain sent": answer_with(build_response(GOOD, "Content-Encoding: gzip")),
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
async def test_what_is_broken_is_an_error_to_try_again_and_never_a_capture_or_a_refusal(script):
    """No broken answer is taken for one, none is taken for Braze refusing the pair, and none shows the key."""
    outcome, _ = await asked(script)
    assert isinstance(outcome, ExchangeError), outcome


async def test_a_gzip_body_cut_at_any_byte_is_noticed():
    """Aiohttp takes a truncated gzip body silently; the shape of the answer tells."""
    data = gzip.compress(GOOD)
    for at in range(len(data)):
        outcome, _ = await asked(answer_with(build_response(data[:at], "Content-Encoding: gzip")))
        assert isinstance(outcome, ExchangeError) or outcome.body == GOOD, at


@pytest.mark.parametrize(
    "script",
    [
        answer_with(b"", then="silence"),
        answer_with(build_response(GOOD)[:-5], then="silence"),
        answer_slowly(build_response(GOOD), 0.05),
        answer_slowly(OK + b"X: " + b"y" * 200, 0.05),
    ],
    ids=["silence", "silence in the body", "dripping", "dripping headers"],
)
async def test_the_whole_exchange_is_bounded(script):
    """Silence and the slowest drip end at the total timeout, whatever arrives in between."""
    outcome, _ = await asked(script, timeout_seconds=0.3)
    assert isinstance(outcome, ExchangeError)
    assert outcome.cause == "timeout"


async def test_a_gzip_bomb_is_dropped_at_the_cap():
    """A small body that decodes to a gigabyte is given up once it has passed the cap."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"0" * 1_000_000) for _ in range(3 * MAX_BODY_BYTES // 1_000_000)) + packer.flush()
    outcome, _ = await asked(answer_with(build_response(bomb, "Content-Encoding: gzip")))
    assert isinstance(outcome, ExchangeError)
    assert outcome.cause == "oversized"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status):
    """The key does not travel to another host, whatever the first one says."""
    async with serve_script(answer_with(build_response(GOOD))) as other:
        answer, server = await asked(answer_with(build_response(b"", f"Location: {other.url}/", status=status)))
        assert not isinstance(answer, ExchangeError)
        assert classify_status(answer.status) is Meaning.TRANSIENT
        assert len(server.requests) == 1
        assert not other.connections


async def test_a_dead_kept_connection_is_not_asked_twice():
    """Each call is at most one request on the wire, since each costs budget: aiohttp would resend by itself."""

    async def once_then_dead(reader, writer, server) -> None:
        await read_request(reader, server)
        writer.write(build_response(GOOD))
        await writer.drain()
        await read_request(reader, server)
        writer.transport.abort()

    async with serve_script(once_then_dead) as server:
        transport = transport_to(server.url)
        await transport.send_series(PAIR, length_days=15, ending_at=1e9)
        with pytest.raises(ExchangeError):
            await transport.send_series(PAIR, length_days=15, ending_at=1e9)
        assert len(server.requests) == 2
        await transport.close()


async def test_what_a_body_left_over_is_not_read_as_the_next_answer():
    """A body longer than its length does not poison the next call on that connection."""
    async with serve_script(
        answer_with(build_response(GOOD) + build_response(b'{"message":"success","data":[1]}'), then="keep")
    ) as server:
        transport = transport_to(server.url)
        for _ in range(3):
            try:
                answer = await transport.send_series(PAIR, length_days=15, ending_at=1e9)
            except ExchangeError:
                continue
            assert answer.body == GOOD
        await transport.close()


async def test_an_answer_that_nobody_asked_for_is_not_the_next_ones():
    """What a server sends of itself on a kept connection is never read as the numbers of the next pair."""
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
        transport = transport_to(server.url)
        first = await transport.send_series(PAIR, length_days=15, ending_at=1e9)
        unasked.set()
        for _ in range(20):  # let it arrive
            await asyncio.sleep(0)
        try:
            second = await transport.send_series(PAIR, length_days=15, ending_at=1e9)
            assert second.body == GOOD
        except ExchangeError:
            pass  # as good: it is tried again
        assert first.body == GOOD
        await transport.close()


async def test_proxy_and_netrc_of_the_environment_are_ignored(monkeypatch, tmp_path):
    """The key goes to the endpoint and through nothing that happens to be set."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answer, server = await asked(answer_with(build_response(GOOD)))
    assert answer.body == GOOD
    assert f"Authorization: Bearer {KEY}".encode() in server.requests[0]


@pytest.mark.parametrize(
    ("send_id", "sent"),
    [
        ("a&length=1", b"a%26length%3D1"), ("a#b", b"a%23b"), ("a%00b", b"a%2500b"), ("a b", b"a%20b"),
        ("../../etc", b"..%2F..%2Fetc"), ("..", b".."), ("a\nb", b"a%0Ab"), ('a"b', b"a%22b"), ("a+b", b"a%2Bb"),
    ],
)  # fmt: skip
async def test_an_id_is_one_value_of_the_query_whatever_it_holds(send_id, sent):
    """Ids are opaque: nothing in one becomes another parameter, a fragment or a second line."""
    _, server = await asked(answer_with(build_response(GOOD)), pair=Pair("default", "c", send_id))
    line = server.requests[0].split(b"\r\n")[0]
    expected = (
        b"GET /sends/data_series?campaign_id=c&send_id=" + sent + b"&length=15&ending_at=2001-09-09T01%3A46%3A40Z"
    )
    assert line == expected + b" HTTP/1.1"


async def test_nobody_there_is_an_error_to_try_again():
    """A refused connection and an unresolvable name are transient, and reported in plain words."""
    told = {
        "http://127.0.0.1:9": ("connection_refused", "connection refused"),
        "http://no-such-host.invalid": ("name_not_found", "name not found"),
    }
    for url, expected in told.items():
        transport = transport_to(url)
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
async def test_a_key_sent_back_in_a_broken_head_is_not_told(reply):
    """What cannot be parsed is quoted in the error, but for the key and what a terminal would obey."""
    error, _ = await asked(answer_with(reply % KEY.encode()))
    assert isinstance(error, ExchangeError)
    assert KEY[:8] not in str(error)
    assert str(error).isprintable()


def test_every_error_of_aiohttp_has_a_translation():
    """None of the client's errors can leave through the door as itself, and none brings the request's headers."""
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


def test_every_status_has_one_meaning():
    """Only a 200 can be an answer; only refusals of the pair itself reject it."""
    expected = dict.fromkeys(range(100, 600), Meaning.TRANSIENT)
    expected |= dict.fromkeys({*range(400, 500)} - {408}, Meaning.REJECTED)
    expected |= dict.fromkeys((401, 403, 415), Meaning.HALTED) | {200: Meaning.ANSWER, 429: Meaning.THROTTLED}
    assert {status: classify_status(status) for status in range(100, 600)} == expected


def test_exit_codes_are_the_documented_ones():
    """Scripts act on them, so they are what the table of docs/configuration.md says."""
    readme = (Path(__file__).parent.parent.parent / "docs/configuration.md").read_text()
    words = "complete|bug|not usable|partial|halted|storage|interrupted"
    documented = re.findall(rf"^\| (\d+) \| .*?({words})", readme, re.MULTILINE)
    assert [(int(code), word) for code, word in documented] == list(zip(ExitCode, words.split("|"), strict=True))


async def test_cancelling_an_exchange_ends_it():
    """A stop that gives up does not wait for a silent server."""
    async with serve_script(answer_with(b"", then="silence")) as server:
        transport = transport_to(server.url)
        task = asyncio.create_task(transport.send_series(PAIR, length_days=15, ending_at=1e9))
        while not server.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.close()


async def test_a_name_that_is_looked_up_slowly_does_not_hold_up_others(monkeypatch):
    """A resolver that never answers ends at the total timeout, and meanwhile the loop serves everybody else."""
    loop = asyncio.get_running_loop()

    async def never(*_given: object, **_named: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(loop, "getaddrinfo", never)
    slow = transport_to("http://rest.example.invalid", timeout_seconds=0.3)
    answer, _ = await asked(answer_with(build_response(GOOD)))
    assert answer.body == GOOD
    with pytest.raises(ExchangeError) as caught:
        await slow.send_series(PAIR, length_days=15, ending_at=1e9)
    assert caught.value.cause == "timeout"
    await slow.close()
