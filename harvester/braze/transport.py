"""Sends one ``GET /sends/data_series``.

Each call sends exactly one request. aiohttp would resend it automatically on a dead kept-alive connection; this is
prevented, because every request costs quota. Redirects are not followed (the key must not reach another host), and
neither proxies nor netrc of the environment are used. The only proxy is the one of the settings, as a tunnel: it sees
the name of the endpoint, and neither the request nor the key. Bodies above the limit are not returned. Every error of
aiohttp becomes an ``ExchangeError``.
"""

import codecs
import json
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from yarl import URL

from harvester.braze.aiohttp_import import aiohttp
from harvester.braze.connections import Connections
from harvester.braze.quota import QuotaReport
from harvester.braze.transport_errors import translate_error
from harvester.clock import Clock
from harvester.errors import ExchangeError
from harvester.formatting import iso_time
from harvester.model import Pair
from harvester.observability.redaction import register_secret, scrub
from harvester.settings import Proxy

codecs.lookup("unicode_escape")  # otherwise it is loaded at the first use, which fails if no file can be opened then

OK = 200
_ESCAPED = re.compile(rb"\\u00([2-7][0-9A-Fa-f])")

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The decoded size above which a response is discarded: a hundred times the largest plausible one."""

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
LARGE_BODY_BYTES = 1024 * 1024
"""While the responses that are being read for a workspace have more than ``MAX_BUFFERED_BYTES`` together, those above
``LARGE_BODY_BYTES`` are discarded. 64 decompression bombs at once must not take 64 times the memory of one."""


class Response(NamedTuple):
    """A response: status, decoded body, and the quota that its headers report.

    ``old_key``: the request was sent with a key that has been replaced since.
    """

    status: int
    body: bytes
    quota: QuotaReport
    latency_seconds: float
    request_id: str = ""
    old_key: bool = False

    def __repr__(self) -> str:
        """Omit the body: that of a 401 quotes the key."""
        return f"Response({self.status}, {len(self.body)} bytes, {self.quota})"


REQUEST_TIMEOUT_SECONDS = 30.0
"""How long a request may take, from connecting to the last byte. A response of 15 days has a few kilobytes."""


class Transport(Protocol):
    """The interface to the network. Another implementation can replace it."""

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Send one request. Raises ``ExchangeError`` if there was no complete response."""
        ...

    def use_key(self, api_key: str) -> None:
        """Use this key from now on."""
        ...

    def scrub(self, text: str) -> str:
        """Remove the API key from a text, since Braze echoes it in the body of a 401."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class BrazeTransport:
    """Sends requests to Braze with the key of one workspace."""

    def __init__(
        self,
        endpoint: str,
        api_key: str,
        *,
        connections: int | Connections,
        clock: Clock,
        proxy: Proxy | None = None,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        """Open a session for ``endpoint`` (an origin such as ``https://rest.fra-01.braze.eu``).

        ``connections`` are shared with other transports; a number opens as many of its own. ``proxy`` is used only for
        https, where it cannot read the key. ``timeout_seconds`` bounds the whole exchange, a slow drip included.
        """
        self._url = URL(endpoint.rstrip("/") + "/sends/data_series", encoded=True)
        self._api_key = api_key
        self._keys: set[bytes] = set()
        self._register_key(api_key)
        self._clock = clock
        self._proxy = proxy if self._url.scheme == "https" else None
        shared = isinstance(connections, Connections)
        pool = connections if isinstance(connections, Connections) else Connections(connections)
        self._tls = pool.tls if self._url.scheme == "https" else None
        self._options = self._build_options()
        self._buffered_bytes = 0
        self._session = aiohttp.ClientSession(
            connector=pool.connector,
            connector_owner=not shared,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=min(10.0, timeout_seconds)),
            headers={"User-Agent": "harvester"},
            middlewares=(self._never_resend,),
        )

    def __repr__(self) -> str:
        """Return the URL, never the key."""
        return f"BrazeTransport({self._url})"

    def use_key(self, api_key: str) -> None:
        """Use this key from now on (see the protocol).

        Braze's keys cannot be changed, only replaced. Requests in flight keep the previous key.
        """
        self._api_key = api_key
        self._register_key(api_key)
        self._options = self._build_options()

    def _build_options(self) -> dict[str, Any]:
        """Return the options of every request.

        The key must not be a header of the session: aiohttp sends those to the proxy too, before any encryption.
        """
        options: dict[str, Any] = {
            "allow_redirects": False,
            "headers": {"Authorization": f"Bearer {self._api_key}"},
        }
        if self._tls is not None:
            options["ssl"] = self._tls
        if self._proxy is not None:
            options["proxy"] = URL(self._proxy.address)
            if self._proxy.credentials is not None:
                login = aiohttp.encode_basic_auth(*self._proxy.credentials)
                options["proxy_headers"] = {"Proxy-Authorization": login}
        return options

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Send one request for a pair's daily series (see the protocol)."""
        url, key = self._build_url(pair, length_days, ending_at), self._api_key
        started = self._clock.monotonic()
        try:
            async with self._session.get(url, **self._options) as response:
                body = await self._read_body(response.content)
        except ExchangeError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise translate_error(error, self._proxy) from None
        if response.status == OK:
            self._check_no_key(body)
        headers = response.headers
        return Response(
            status=response.status,
            body=body,
            quota=QuotaReport.from_headers(headers),
            latency_seconds=self._clock.monotonic() - started,
            request_id=headers.get("X-Request-Id", ""),
            old_key=key != self._api_key,
        )

    async def _never_resend(
        self,
        request: aiohttp.ClientRequest,
        handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
    ) -> aiohttp.ClientResponse:
        """Prevent aiohttp from resending automatically, which it does after these two errors only."""
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise translate_error(error, self._proxy) from None

    async def _read_body(self, content: aiohttp.StreamReader) -> bytes:
        """Read a body to its end. Raises ``ExchangeError`` once its decoded size is above a limit."""
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await content.readany():
                chunks.append(chunk)
                size += len(chunk)
                self._buffered_bytes += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise ExchangeError("oversized", f"the response is larger than {MAX_BODY_BYTES} bytes")
                if size > LARGE_BODY_BYTES and self._buffered_bytes > MAX_BUFFERED_BYTES:
                    raise ExchangeError("oversized", f"responses of more than {MAX_BUFFERED_BYTES} bytes came at once")
            return b"".join(chunks)
        finally:
            self._buffered_bytes -= size

    def _build_url(self, pair: Pair, length_days: int, ending_at: float) -> URL:
        """Build the request's URL. Ids may contain any character, so every reserved one is quoted."""
        query = (
            f"campaign_id={_quote(pair.campaign_id)}&send_id={quote(pair.send_id, safe='')}"
            f"&length={length_days}&ending_at={_format_time(ending_at)}"
        )
        url = self._url  # built from its parts, so that no part is parsed again for each request
        return URL.build(
            scheme=url.scheme, authority=url.raw_authority, path=url.raw_path, query_string=query, encoded=True
        )

    def _register_key(self, api_key: str) -> None:
        """Mask a key from now on, in addition to previous ones: responses to them may still come."""
        register_secret(api_key)
        self._keys |= {api_key.encode(), json.dumps(api_key)[1:-1].encode()}

    def _check_no_key(self, body: bytes) -> None:
        """Raise ``ExchangeError`` if a response contains the key, which would get into the rows."""
        plain = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), body) if b"\\u00" in body else body
        if any(key in plain for key in self._keys):
            raise ExchangeError("malformed", "the response contains the API key, so it was discarded")

    def scrub(self, text: str) -> str:
        """Remove the key, and every other secret, from a text, in any encoding."""
        return scrub(text)

    async def close(self) -> None:
        """Close the session, and the connections unless they are shared."""
        await self._session.close()


@lru_cache(maxsize=1024)
def _quote(campaign_id: str) -> str:
    """Quote a campaign's id. Many sends share one, so it is cached."""
    return quote(campaign_id, safe="")


@lru_cache(maxsize=64)
def _format_time(seconds: float) -> str:
    """Return a time as strict RFC 3339, quoted. The readings of a batch share it, so it is cached."""
    return quote(iso_time(seconds), safe="")
