"""Translates the errors of aiohttp."""

import ssl

from yarl import URL

from harvester.braze.aiohttp_import import aiohttp
from harvester.causes import PROXY_UNREACHABLE, classify_proxy_status, find_cause
from harvester.errors import ExchangeError, format_cause
from harvester.observability.redaction import scrub_foreign
from harvester.settings import Proxy
from harvester.settings.environment import get_certificates_hint

_UNREACHABLE = (
    aiohttp.ClientProxyConnectionError,
    aiohttp.ClientConnectorDNSError,
    aiohttp.ConnectionTimeoutError,
)


def translate_error(error: Exception, proxy: Proxy | None = None) -> ExchangeError:
    """Translate an error of aiohttp, of a request through ``proxy``, into an ``ExchangeError``.

    The cause is one of a closed set, and is found from types and numbers. The detail quotes the system's error of a
    connection, because aiohttp's own text names a host and "ssl:default" even for plain http. The detail is scrubbed:
    it may contain bytes of the server, and therefore the key. The ``repr`` of a ``ClientResponseError`` contains the
    request headers and the key, so it is never used. The status in such an error is aiohttp's own (400 for a response
    that it cannot parse) and is ignored.
    """
    if proxy is not None and (found := _translate_proxy_error(error, proxy)) is not None:
        return found
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
    detail = scrub_foreign(_describe(error))
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        detail = f"{detail}; {get_certificates_hint()}"
    return ExchangeError(cause or "network", detail)


def _translate_proxy_error(error: Exception, proxy: Proxy) -> ExchangeError | None:
    """Translate an error of the proxy itself; return None for an error beyond it."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        advice = "; check the user and the password in proxy or proxy_file" if error.status == 407 else ""
        return ExchangeError(classify_proxy_status(error.status), f"status {error.status} from {proxy.address}{advice}")
    # With a proxy, only its own name is looked up here, and the timeout of a connection is that of its own.
    if isinstance(error, _UNREACHABLE):
        return ExchangeError(PROXY_UNREACHABLE, f"{proxy.address}: {format_cause(find_cause(error) or 'failed')}")
    if isinstance(error, aiohttp.ClientConnectorSSLError) and error.host == URL(proxy.address).host:
        advice = "use http:// for the proxy, unless it speaks TLS itself"
        return ExchangeError(PROXY_UNREACHABLE, f"{proxy.address}: {scrub_foreign(_describe(error))}; {advice}")
    return None


def _describe(error: Exception) -> str:
    """Return what an error adds to its cause; an empty text if it adds nothing."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(inner, ssl.SSLError):
        return str(getattr(inner, "verify_message", "") or inner.reason or "")
    if isinstance(inner, OSError):
        return "" if find_cause(inner) else inner.strerror or str(inner)
    return str(inner) or type(inner).__name__
