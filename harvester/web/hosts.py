"""Checks the ``Host`` of requests, so that no foreign website in the operator's browser can read the page.

A foreign name that resolves to 127.0.0.1 makes a browser treat this server as part of that website (DNS rebinding). So
on loopback only local names are allowed. On other addresses any name is allowed, since a pod's names are unknown.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def allowed_hosts(bound: str) -> frozenset[str] | None:
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
    """Return whether to answer a request with these ``Host`` headers. Without one it is not from a browser."""
    if allowed is None:
        return True
    return all((named := _HOST.fullmatch(host)) is not None and named[1].lower() in allowed for host in hosts)
