"""Checks the ``Host`` of requests, so that no other website in the operator's browser can read the page.

If another website's name resolves to 127.0.0.1, a browser treats this server as part of that website (DNS rebinding).
On loopback, only local names are therefore allowed. On other addresses any name is, because a pod's names are unknown.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def list_allowed_hosts(bound: str) -> frozenset[str] | None:
    """Return the host names that a server bound to this address answers; None for all."""
    if bound.lower() == "localhost":
        return _LOOPBACK
    try:
        address = ip_address(bound)
    except ValueError:
        return None
    if not address.is_loopback:
        return None
    return _LOOPBACK | {f"[{address}]" if address.version == 6 else str(address)}


def is_allowed(hosts: Sequence[str], allowed: frozenset[str] | None) -> bool:
    """Return whether to answer a request with these ``Host`` headers. Without a header, it is not from a browser."""
    if allowed is None:
        return True
    return all((match := _HOST.fullmatch(host)) is not None and match[1].lower() in allowed for host in hosts)
