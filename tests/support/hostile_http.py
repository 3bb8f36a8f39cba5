"""Strategies for HTTP: responses of a server, a proxy or an attacker, and requests to the page.

``KEY`` is the API key; JSON, HTML and URLs encode it differently. ``EVIL`` must not appear on a page.
"""

import gzip
import html
import json
import zlib
from collections.abc import Callable
from urllib.parse import quote

import zstandard
from hypothesis import strategies as st

from tests.support import secret_canary
from tests.support.hostile_input import SCALARS, VALUES, damage, encode_json, mostly, objects_with, usually

KEY = secret_canary.KEY + "\"&</'+"
EVIL = "<script>evil</script>"
SPELLINGS = (KEY, json.dumps(KEY)[1:-1], html.escape(KEY), quote(KEY), quote(KEY, safe=""), repr(KEY)[1:-1])

_COUNTS = mostly(st.integers(0, 1000), SCALARS | VALUES)
_NAMES = {"variation_name": usually("A"), "variation_api_id": usually("v"), "send_id": _COUNTS}
_VARIATIONS = st.lists(mostly(objects_with(_NAMES | {"sent": _COUNTS, "Sent": _COUNTS}), VALUES), max_size=3)
_CHANNELS = mostly(objects_with({"email": _VARIATIONS, "sms": _VARIATIONS}), VALUES)
_DAYS = mostly(
    objects_with({"time": usually("2026-01-01"), "conversions": _COUNTS, "revenue": _COUNTS, "messages": _CHANNELS}),
    VALUES,
)
_SUCCESS = st.builds(lambda days: {"message": "success", "data": days}, st.lists(_DAYS, max_size=4))
_RESPONSE_BODIES = st.builds(
    encode_json, mostly(_SUCCESS, objects_with({"message": usually("success"), "data": VALUES}), one_in=10)
)


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
    "br": lambda body: body,
    "identity": lambda body: body,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
}


_STATUSES = mostly(
    st.just("200 OK"),
    st.sampled_from(["400 Bad", "404 Not", "401 No", "429 Slow", "503 Busy", "302 Found", "999 X", "abc", "200"]),
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Date", "X-Request-Id", "Set-Cookie"]
    ),
    st.sampled_from(
        [*SPELLINGS, "-1", "", "9" * 400, "nan", "\xe9", "\xff", "x" * 9000, "Thu, 01 Jan 1970 00:00:00 GMT"]
    ),
    max_size=3,
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Return a response, valid or broken in its status, headers, framing, encoding or JSON."""
    status, body = (
        draw(_STATUSES),
        draw(mostly(_RESPONSE_BODIES, _RESPONSE_BODIES.flatmap(damage) | st.binary(max_size=50))),
    )
    if not status.startswith("200"):
        body = draw(st.sampled_from(SPELLINGS)).encode() + body
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in draw(_HEADERS).items())]
    if draw(st.integers(1, 4)) == 4:
        encoding = draw(st.sampled_from(sorted(ENCODINGS)))
        compressed = ENCODINGS[encoding](body)
        body = draw(st.sampled_from([compressed, compressed[: len(compressed) // 2], compressed + b"more", body]))
        lines.append(f"Content-Encoding: {encoding}")
    if draw(st.integers(1, 8)) == 8:
        lines.append("Transfer-Encoding: chunked")
        body = draw(st.sampled_from([b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), b"f" * 17 + b"\r\n", body]))
    else:
        wrong_lengths = st.sampled_from([len(body) + 5, max(0, len(body) - 5), -1, 10**30])
        lines.append(f"Content-Length: {draw(mostly(st.just(len(body)), wrong_lengths, one_in=8))}")
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    return draw(mostly(st.just(whole), damage(whole)))


# Requests to the page

_METHODS = mostly(
    st.just("GET"), st.sampled_from(["HEAD", "POST", "DELETE", "OPTIONS", "CONNECT", "G\x00T", "", "get"])
)
_TARGETS = mostly(
    st.sampled_from(["/", "/livez", "/readyz", "/metrics"]),
    st.sampled_from(["/../etc", "*", "//x", "/%00", f"/?a={EVIL}", "http://x/", "/" + "a" * 9000, "\xe9"]),
)
_HOSTS = mostly(
    st.sampled_from(["localhost", "127.0.0.1", "[::1]"]), st.sampled_from([EVIL, "", "localhost, localhost", "\xff"])
)
_REQUEST_HEADERS = st.dictionaries(
    st.sampled_from(
        ["Accept", "Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "Connection", "Range", "Accept-Encoding"]
    ),
    st.sampled_from(
        [
            "",
            "*/*",
            "-1",
            "9" * 20,
            "chunked",
            "100-continue",
            "websocket",
            "x" * 9000,
            "\x01",
            "bytes=0-",
            "gzip",
            EVIL,
        ]
    ),
    max_size=3,
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a request to the page, valid or broken."""
    version = draw(st.sampled_from("0119"))
    lines = [f"{draw(_METHODS)} {draw(_TARGETS)} HTTP/1.{version}", f"Host: {draw(_HOSTS)}"]
    lines += [f"{name}: {value}" for name, value in draw(_REQUEST_HEADERS).items()]
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return draw(mostly(st.just(whole), damage(whole) | st.binary(max_size=60)))
