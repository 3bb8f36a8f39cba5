"""Finds the cause of an error: one of a closed set of codes, such as ``connection_refused``.

Log fields, metric labels, JSON and the ledger contain the code. ``errors.format_cause`` makes the text for people from
it.
"""

import errno
import socket
import ssl
from collections.abc import Iterator

_ERRNOS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.ECONNRESET: "disconnected",
    errno.ECONNABORTED: "disconnected",
    errno.EPIPE: "disconnected",
    errno.ETIMEDOUT: "timeout",
    errno.EMFILE: "too_many_open_files",
    errno.ENFILE: "too_many_open_files",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "read_only",
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EIO: "disk_error",
}
_BEFORE_ERRNO = (ssl.SSLError, socket.gaierror)
"""Errors whose ``errno`` is not a number of the system."""

_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, "certificate"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "name_not_found"),
    (TimeoutError, "timeout"),
    (ConnectionError, "disconnected"),
    (EOFError, "disconnected"),
)
"""The most specific types first."""

PROXY_UNREACHABLE = "proxy_unreachable"
"""The proxy itself could not be reached."""


def classify_proxy_status(status: int) -> str:
    """Return the cause of a proxy's refusal to connect to a server: 407 asks for a user and a password (RFC 9110)."""
    return "proxy_authentication" if status == 407 else "proxy_refused"


def find_cause(error: BaseException) -> str | None:
    """Return the cause of an error by its type and number, never by its text; None if it has no known cause.

    Libraries wrap errors of the operating system, so the errors inside ``error`` are checked too.
    """
    for each in _with_inner(error):
        if isinstance(each, OSError) and each.errno in _ERRNOS and not isinstance(each, _BEFORE_ERRNO):
            return _ERRNOS[each.errno]
        for kind, cause in _KINDS:
            if isinstance(each, kind):
                return cause
    return None


def _with_inner(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside an error, innermost first, then the error: the innermost is the most specific."""
    seen: list[BaseException] = []
    todo: list[BaseException] = [error]
    while todo and len(seen) < 20:
        each = todo.pop(0)
        if each not in seen:
            seen.append(each)
            inner = (each.__cause__, each.__context__, *getattr(each, "__dict__", {}).values(), *each.args)
            todo += [one for one in inner if isinstance(one, BaseException)]
    yield from reversed(seen)
