"""One ``GET /sends/data_series``: the only door to aiohttp's client.

It sends one request on the wire, never two: aiohttp's silent resend on a dead kept-alive connection is
suppressed, since every request costs budget. It never takes one request's answer for another's, never follows
a redirect (the key must not travel), never reads a proxy or netrc from the environment, and never returns a body
larger than the cap.
Every foreign error leaves here as an ``ExchangeError``, most specific first.
"""

import codecs
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import aiohttp
from yarl import URL

from harvester.braze.budget import BudgetReport
from harvester.causes import find_cause
from harvester.clock import Clock
from harvester.errors import ExchangeError
from harvester.model import Pair
from harvester.observability.redaction import register_secret, scrub, scrub_foreign
from harvester.settings.environment import get_certificates_hint

codecs.lookup("unicode_escape")  # loaded on first use otherwise, which fails just when no file can be opened

OK = 200
_ESCAPED = re.compile(rb"\\u00([2-7][0-9A-Fa-f])")

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Decoded size at which an answer is dropped: a hundred times the largest plausible one."""

MAX_HELD_BYTES = 64 * 1024 * 1024
LARGE_BODY_BYTES = 1024 * 1024
"""Once all answers being read hold so much together, those that are large are dropped: sixty-four bombs at once must
not take sixty-four times the memory of one."""


class Answer(NamedTuple):
    """What came back: status line, decoded body, and what the headers say of the budget.

    ``old_key``: it was asked with a key that has been replaced meanwhile.
    """

    status: int
    body: bytes
    budget: BudgetReport
    latency_seconds: float
    request_id: str = ""
    old_key: bool = False

    def __repr__(self) -> str:
        """Leave the body out: that of a 401 quotes the key."""
        return f"Answer({self.status}, {len(self.body)} bytes, {self.budget})"


REQUEST_TIMEOUT_SECONDS = 30.0
"""How long a whole exchange may take, from connecting to the last byte. An answer of 15 days has a few kilobytes."""


class Transport(Protocol):
    """The lowest seam: whoever implements this can stand in for Braze."""

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Answer:
        """Ask once. Raises ``ExchangeError`` when no whole answer came."""
        ...

    def use_key(self, api_key: str) -> bool:
        """Ask with this key from now on; False if it is in use already."""
        ...

    def scrub(self, text: str) -> str:
        """Take the API key out of a text, since Braze echoes it in the body of a 401."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


def translated(error: Exception) -> ExchangeError:
    """Turn an error of aiohttp into ours; the cause is a closed set, read from types and numbers.

    What the system said of a connection is told in its own words: those of aiohttp name a host and "ssl:default" even
    for plain http. The detail may quote what the server sent, which may be the key, so it is scrubbed.
    The ``repr`` of a ``ClientResponseError`` prints the request headers and with them the key, so nothing here
    uses it. A status inside such an error is aiohttp's own (400 for whatever it could not parse) and is ignored.
    """
    causes: tuple[tuple[type[Exception], str | None], ...] = (
        (TimeoutError, "timeout"),
        (aiohttp.ClientConnectorCertificateError, "certificate"),
        (aiohttp.ClientConnectorDNSError, "name_not_found"),
        (aiohttp.ClientSSLError, find_cause(error) or "tls"),
        (aiohttp.ClientOSError, find_cause(error) or "network"),
        (aiohttp.ServerDisconnectedError, "disconnected"),
        (aiohttp.ClientPayloadError, "truncated"),
        (aiohttp.ClientResponseError, "malformed"),
        (aiohttp.ClientError, "network"),
        (ssl.SSLError, find_cause(error)),
        (OSError, "network"),
        (ValueError, "malformed"),
    )
    cause = next(cause for kind, cause in causes if isinstance(error, kind))
    detail = scrub_foreign(_text_of(error))
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        detail = f"{detail}; {get_certificates_hint()}"
    return ExchangeError(cause or "network", detail)


def _text_of(error: Exception) -> str:
    """Return the useful text of an error beside its cause; empty if the cause says everything."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(inner, ssl.SSLError):
        return str(getattr(inner, "verify_message", "") or inner.reason or "")
    if isinstance(inner, OSError):
        return "" if find_cause(inner) else inner.strerror or str(inner)
    return str(inner) or type(inner).__name__


class _Connector(aiohttp.TCPConnector):
    """Never reuses a connection on which something came that nobody asked for.

    aiohttp would take it for the answer to the next request, and every later answer for that of its predecessor.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


class BrazeTransport:
    """The real thing, over one session with kept-alive connections."""

    def __init__(
        self,
        *,
        endpoint: str,
        api_key: str,
        connections: int,
        clock: Clock,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        """Open a session for ``endpoint`` (an origin such as ``https://rest.fra-01.braze.eu``).

        ``timeout_seconds`` bounds the whole exchange, a slow drip included.
        """
        self._url = URL(endpoint.rstrip("/") + "/sends/data_series", encoded=True)
        self._api_key = api_key
        self._keys: set[bytes] = set()
        self._register_key(api_key)
        self._clock = clock
        self._held_bytes = 0
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=connections, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=min(10.0, timeout_seconds)),
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "harvester"},
            middlewares=(self._never_resend,),
        )

    def __repr__(self) -> str:
        """Name the place, never the key."""
        return f"BrazeTransport({self._url})"

    def use_key(self, api_key: str) -> bool:
        """Ask with this key from now on (see the protocol).

        Braze's keys cannot be changed, only replaced. What is under way goes on with the one before.
        """
        if api_key == self._api_key:
            return False
        self._api_key = api_key
        self._register_key(api_key)
        self._session.headers["Authorization"] = f"Bearer {api_key}"
        return True

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Answer:
        """Ask once for a pair's daily series (see the protocol)."""
        url, key = self._target(pair, length_days, ending_at), self._api_key
        started = self._clock.monotonic()
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                body = await self._capped(response.content)
        except ExchangeError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise translated(error) from None
        if response.status == OK:
            self._check_no_key(body)
        headers = response.headers
        return Answer(
            status=response.status,
            body=body,
            budget=BudgetReport.from_headers(headers),
            latency_seconds=self._clock.monotonic() - started,
            request_id=headers.get("X-Request-Id", ""),
            old_key=key != self._api_key,
        )

    async def _never_resend(
        self,
        request: aiohttp.ClientRequest,
        handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
    ) -> aiohttp.ClientResponse:
        """Keep aiohttp from resending by itself: it does so on these two errors only, and only unseen by us."""
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise translated(error) from None

    async def _capped(self, content: aiohttp.StreamReader) -> bytes:
        """Read a body to its end, or raise once it has decoded to more than one of the caps."""
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await content.readany():
                chunks.append(chunk)
                size += len(chunk)
                self._held_bytes += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise ExchangeError("oversized", f"the answer is larger than {MAX_BODY_BYTES} bytes")
                if size > LARGE_BODY_BYTES and self._held_bytes > MAX_HELD_BYTES:
                    raise ExchangeError("oversized", f"answers of more than {MAX_HELD_BYTES} bytes came at once")
            return b"".join(chunks)
        finally:
            self._held_bytes -= size

    def _target(self, pair: Pair, length_days: int, ending_at: float) -> URL:
        """Build the request's URL; ids are opaque and may hold anything, so every reserved character is quoted."""
        question = (
            f"campaign_id={_quoted(pair.campaign_id)}&send_id={quote(pair.send_id, safe='')}"
            f"&length={length_days}&ending_at={_moment(ending_at)}"
        )
        url = self._url  # put together from its parts, or every part of every URL would be looked at again
        return URL.build(
            scheme=url.scheme, authority=url.raw_authority, path=url.raw_path, query_string=question, encoded=True
        )

    def _register_key(self, api_key: str) -> None:
        """Mask a key from now on, beside the previous ones: answers to them may still be under way."""
        register_secret(api_key)
        self._keys |= {api_key.encode(), json.dumps(api_key)[1:-1].encode()}

    def _check_no_key(self, body: bytes) -> None:
        """Raise ``ExchangeError`` if the key would get from an answer into the rows."""
        plain = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), body) if b"\\u00" in body else body
        if any(key in plain for key in self._keys):
            raise ExchangeError("malformed", "the answer contains the API key, so it was discarded")

    def scrub(self, text: str) -> str:
        """Take the key, and every other secret, out of a text, in any spelling."""
        return scrub(text)

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()


@lru_cache(maxsize=1024)
def _quoted(campaign_id: str) -> str:
    """Quote a campaign's id, which many sends share."""
    return quote(campaign_id, safe="")


@lru_cache(maxsize=64)
def _moment(seconds: float) -> str:
    """Give a time as strict RFC 3339, quoted; a batch shares it."""
    return quote(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), safe="")
