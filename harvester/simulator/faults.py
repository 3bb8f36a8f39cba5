"""The faults of the stand-in: each takes the response that would be sent, and returns what is sent instead.

Documented: 500, 502, 503 and 504, and that a 502 never reached the server. Recorded: Cloudflare stands in front.
Inferred from both: 52x statuses, and HTML pages without quota headers. All other faults come from networks, proxies and
mistakes, and are no claim about Braze. A request with a fault is charged, which is the cautious guess.

A send id can request a fault: ``fault-503`` anywhere in it causes one every time, ``fault-503x2`` the first two times.
"""

import asyncio
import gzip
import inspect
import re
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

LIMIT, REMAINING, RESET = RATE_LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
BY_RATE = (
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
"""The faults that a rate draws by default. All are transient, so that everything can be captured in the end."""

_REQUESTED = re.compile(r"fault-(\d{3}|[a-z_]+?)(?:x(\d{1,9}))?(?![a-z0-9_])", re.ASCII)
_NO_SERVER = frozenset({502, 503, 504}) | frozenset(range(520, 531))


class Unanswered(web.Response):
    """A response without a status: the connection is cut after ``seconds``."""

    seconds = 0.0

    async def prepare(self, request: web.BaseRequest) -> None:
        """Cut the connection instead of writing to it."""
        await asyncio.sleep(self.seconds)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError


class Late(web.Response):
    """A response that is sent ``seconds`` after its decision, behind later ones."""

    seconds = 0.5

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Wait, then send."""
        await asyncio.sleep(self.seconds)
        return await super().prepare(request)


def reset(_answer: web.Response) -> web.Response:
    """Cut the connection before a status."""
    return Unanswered()


def slow(_answer: web.Response) -> web.Response:
    """Accept the request, and stay silent for an hour."""
    unanswered = Unanswered()
    unanswered.seconds = 3600.0
    return unanswered


def truncated(answer: web.Response) -> web.Response:
    """Promise the whole body, and end the connection in its middle."""
    whole = _bytes(answer)
    answer.headers["Content-Length"] = str(len(whole))
    answer.force_close()
    return _with_body(answer, whole[: len(whole) // 2])


def gzip_cut(answer: web.Response) -> web.Response:
    """Answer with a gzip stream that ends in its middle, correctly framed."""
    packed = gzip.compress(_bytes(answer), mtime=0)
    answer.headers["Content-Encoding"] = "gzip"
    return _with_body(answer, packed[: len(packed) // 2])


def not_json(answer: web.Response) -> web.Response:
    """Answer with JSON that ends in its middle, correctly framed."""
    whole = _bytes(answer)
    return _with_body(answer, whole[: len(whole) // 2])


def empty_body(answer: web.Response) -> web.Response:
    """Answer without a body."""
    return _with_body(answer, b"")


def empty_object(answer: web.Response) -> web.Response:
    """Answer with {}."""
    return _with_body(answer, b"{}")


def nosuccess(answer: web.Response) -> web.Response:
    """Answer with another message than success."""
    return _with_body(answer, b'{"message":"queued"}')


def html(_answer: web.Response) -> web.Response:
    """Answer 200 with a page, as a proxy's challenge does."""
    return _page(200, "Just a moment...")


def redirect(answer: web.Response) -> web.Response:
    """Send the client, and with it the key, to another host."""
    answer.set_status(302)
    answer.headers["Location"] = "http://127.0.0.2:9/"
    return _with_body(answer, b"")


def late(answer: web.Response) -> web.Response:
    """Answer correctly, half a second late, so that its quota headers are old."""
    return Late(status=answer.status, body=answer.body, headers=answer.headers)


def headers_missing(answer: web.Response) -> web.Response:
    """Answer correctly, without quota headers."""
    for name in RATE_LIMIT_HEADERS:
        answer.headers.pop(name, None)
    return answer


def headers_empty(answer: web.Response) -> web.Response:
    """Answer correctly, with empty quota headers."""
    answer.headers.update(dict.fromkeys(RATE_LIMIT_HEADERS, ""))
    return answer


def headers_twice(answer: web.Response) -> web.Response:
    """Answer correctly, with each quota header twice, the second one 0."""
    for name in RATE_LIMIT_HEADERS:
        answer.headers.add(name, "0")
    return answer


def reset_milliseconds(answer: web.Response) -> web.Response:
    """Answer correctly, with a reset in milliseconds."""
    answer.headers[RESET] = answer.headers.get(RESET, "") + "000"
    return answer


def reset_negative(answer: web.Response) -> web.Response:
    """Answer correctly, with a negative reset."""
    answer.headers[RESET] = "-1"
    return answer


def reset_text(answer: web.Response) -> web.Response:
    """Answer correctly, with text as the reset."""
    answer.headers[RESET] = "in an hour"
    return answer


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


def requested_fault(send_id: str) -> tuple[str, int | None] | None:
    """Parse the fault that a send id requests, and how many times at most (None: always).

    The fault may not exist: ``corrupt`` then answers with a 400.
    """
    if (found := _REQUESTED.search(send_id)) is None:
        return None
    return found[1], int(found[2]) if found[2] else None


def exists(name: str) -> bool:
    """Return whether a fault exists: one of ``FAULTS``, or a status from 200 to 599."""
    return name in FAULTS or (len(name) == 3 and name.isdecimal() and 200 <= int(name) <= 599)


def corrupt(answer: web.Response, name: str) -> web.Response:
    """Return what is sent instead of ``answer`` under a fault. ``answer`` itself may be changed."""
    if name in FAULTS:
        return FAULTS[name](answer)
    if not exists(name):
        answer.set_status(400)
        return _with_body(answer, b'{"message":"no such fault"}')
    status = int(name)
    if status == 429:
        return web.Response(status=429)
    if status in _NO_SERVER:
        return _page(status, f"{status}: the origin server did not answer")
    answer.set_status(status)
    return _with_body(answer, b'{"message":"fault"}')


def describe_faults() -> str:
    """Describe all faults for people, one per line."""
    lines = {name: inspect.getdoc(fault) for name, fault in FAULTS.items()}
    lines["200 ... 599"] = (
        "Answer with this status: 502 to 504 and 52x with a page, 429 with nothing, others with JSON."
    )
    return "\n".join(f"{name:20} {text}" for name, text in lines.items())


def _bytes(answer: web.Response) -> bytes:
    body = answer.body
    assert isinstance(body, bytes)
    return body


def _with_body(answer: web.Response, body: bytes) -> web.Response:
    answer.body = body
    return answer


def _page(status: int, title: str) -> web.Response:
    """Return an HTML page as Cloudflare does, without quota headers."""
    page = f"<html><head><title>{title}</title></head><body>{title}</body></html>".encode()
    return web.Response(
        status=status, body=page, headers={"Content-Type": "text/html; charset=UTF-8", "Server": "cloudflare"}
    )
