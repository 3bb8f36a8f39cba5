"""The faults of the stand-in: each takes the correct response and returns the response that is sent instead.

- Documented: 500, 502, 503 and 504, and that a request with a 502 never reached the server.
- Recorded: Cloudflare is in front of the API.
- Inferred from both: statuses 52x, and HTML pages without quota headers.

All other faults are those of networks, proxies and mistakes; they say nothing about Braze. A request with a fault costs
quota, which is a cautious guess.

A send id can request a fault: ``fault-503`` anywhere in it causes one each time, ``fault-503x2`` the first two times.
"""

import asyncio
import gzip
import inspect
import re
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

LIMIT, REMAINING, RESET = RATE_LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
DEFAULT_FAULTS = (
    "500",
    "502",
    "503",
    "520",
    "202",
    "reset",
    "truncated",
    "gzip_cut",
    "html",
    "not_json",
    "empty_body",
    "empty_object",
    "nosuccess",
)
"""The faults that are chosen at random by default. All are transient, so every send can be captured in the end."""

_REQUESTED_FAULT = re.compile(r"fault-(\d{3}|[a-z_]+?)(?:x(\d{1,9}))?(?![a-z0-9_])", re.ASCII)
_PROXY_STATUSES = frozenset({502, 503, 504}) | frozenset(range(520, 531))


class CutConnection(web.Response):
    """No response: the connection is cut after ``seconds``, before a status is sent."""

    seconds = 0.0

    async def prepare(self, request: web.BaseRequest) -> None:
        """Cut the connection instead of writing to it."""
        await asyncio.sleep(self.seconds)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError


class DelayedResponse(web.Response):
    """A response that is sent ``seconds`` after it was decided, so later responses can overtake it."""

    seconds = 0.5

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Wait, then send."""
        await asyncio.sleep(self.seconds)
        return await super().prepare(request)


def reset(_response: web.Response) -> web.Response:
    """Cut the connection before a status is sent."""
    return CutConnection()


def slow(_response: web.Response) -> web.Response:
    """Accept the request, and send nothing for an hour."""
    silence = CutConnection()
    silence.seconds = 3600.0
    return silence


def truncated(response: web.Response) -> web.Response:
    """Announce the whole body, and cut the connection after half of it."""
    whole = _get_body(response)
    response.headers["Content-Length"] = str(len(whole))
    response.force_close()
    return _replace_body(response, whole[: len(whole) // 2])


def gzip_cut(response: web.Response) -> web.Response:
    """Send half of a gzip stream, with the correct length of that half."""
    packed = gzip.compress(_get_body(response), mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    return _replace_body(response, packed[: len(packed) // 2])


def not_json(response: web.Response) -> web.Response:
    """Send half of the JSON, with the correct length of that half."""
    whole = _get_body(response)
    return _replace_body(response, whole[: len(whole) // 2])


def empty_body(response: web.Response) -> web.Response:
    """Send an empty body."""
    return _replace_body(response, b"")


def empty_object(response: web.Response) -> web.Response:
    """Send {} as the body."""
    return _replace_body(response, b"{}")


def nosuccess(response: web.Response) -> web.Response:
    """Send a message other than success."""
    return _replace_body(response, b'{"message":"queued"}')


def html(_response: web.Response) -> web.Response:
    """Send 200 with an HTML page, like the challenge of a proxy."""
    return _build_page(200, "Just a moment...")


def redirect(response: web.Response) -> web.Response:
    """Redirect the client, which would send the key to another host."""
    response.set_status(302)
    response.headers["Location"] = "http://127.0.0.2:9/"
    return _replace_body(response, b"")


def late(response: web.Response) -> web.Response:
    """Send the correct response half a second late, so its quota headers are old."""
    return DelayedResponse(status=response.status, body=response.body, headers=response.headers)


def headers_missing(response: web.Response) -> web.Response:
    """Send the correct response without quota headers."""
    for name in RATE_LIMIT_HEADERS:
        response.headers.pop(name, None)
    return response


def headers_empty(response: web.Response) -> web.Response:
    """Send the correct response with empty quota headers."""
    response.headers.update(dict.fromkeys(RATE_LIMIT_HEADERS, ""))
    return response


def headers_twice(response: web.Response) -> web.Response:
    """Send the correct response with each quota header twice; the second one is 0."""
    for name in RATE_LIMIT_HEADERS:
        response.headers.add(name, "0")
    return response


def reset_milliseconds(response: web.Response) -> web.Response:
    """Send the correct response with the reset in milliseconds."""
    response.headers[RESET] = response.headers.get(RESET, "") + "000"
    return response


def reset_negative(response: web.Response) -> web.Response:
    """Send the correct response with a negative reset."""
    response.headers[RESET] = "-1"
    return response


def reset_text(response: web.Response) -> web.Response:
    """Send the correct response with text as the reset."""
    response.headers[RESET] = "in an hour"
    return response


FAULTS: dict[str, Callable[[web.Response], web.Response]] = {
    fault.__name__: fault
    for fault in (
        reset,
        slow,
        truncated,
        gzip_cut,
        not_json,
        empty_body,
        empty_object,
        nosuccess,
        html,
        redirect,
        late,
        headers_missing,
        headers_empty,
        headers_twice,
        reset_milliseconds,
        reset_negative,
        reset_text,
    )
}


def parse_requested_fault(send_id: str) -> tuple[str, int | None] | None:
    """Return the fault that a send id requests and how often it applies (None: always), or None without a fault.

    The fault may not exist; ``corrupt`` then returns a 400.
    """
    if (found := _REQUESTED_FAULT.search(send_id)) is None:
        return None
    return found[1], int(found[2]) if found[2] else None


def fault_exists(name: str) -> bool:
    """Return whether a fault exists: one of ``FAULTS``, or a status from 200 to 599."""
    return name in FAULTS or (len(name) == 3 and name.isdecimal() and 200 <= int(name) <= 599)


def corrupt(response: web.Response, name: str) -> web.Response:
    """Return the response to send instead of ``response``, which may be changed in place."""
    if name in FAULTS:
        return FAULTS[name](response)
    if not fault_exists(name):
        response.set_status(400)
        return _replace_body(response, b'{"message":"no such fault"}')
    status = int(name)
    if status == 429:
        return web.Response(status=429)
    if status in _PROXY_STATUSES:
        return _build_page(status, f"{status}: the origin server did not respond")
    response.set_status(status)
    return _replace_body(response, b'{"message":"fault"}')


def describe_faults() -> str:
    """Return the names and descriptions of all faults as text, one per line."""
    lines = {name: inspect.getdoc(fault) for name, fault in FAULTS.items()}
    lines["200 ... 599"] = "Send this status: 502 to 504 and 52x with an HTML page, 429 with no body, others with JSON."
    return "\n".join(f"{name:20} {text}" for name, text in lines.items())


def _get_body(response: web.Response) -> bytes:
    body = response.body
    assert isinstance(body, bytes)
    return body


def _replace_body(response: web.Response, body: bytes) -> web.Response:
    response.body = body
    return response


def _build_page(status: int, title: str) -> web.Response:
    """Build an HTML page like those of Cloudflare, without quota headers."""
    page = f"<html><head><title>{title}</title></head><body>{title}</body></html>".encode()
    return web.Response(
        status=status, body=page, headers={"Content-Type": "text/html; charset=UTF-8", "Server": "cloudflare"}
    )
