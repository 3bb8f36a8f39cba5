"""Which names of the page are answered: a page of strangers in the operator's browser could read it by another.

A name that leads to 127.0.0.1 makes a browser take this server for the stranger's own (DNS rebinding). So on loopback
only its own names count. Bound to other addresses it has names that it cannot know, such as a pod's, and takes any.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def allowed_hosts(bound: str) -> frozenset[str] | None:
    """Give the names that are answered by a server bound to this address; None for all."""
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
    """Whether a request with these ``Host`` headers is answered: without one it comes from no browser."""
    if allowed is None:
        return True
    return all((named := _HOST.fullmatch(host)) is not None and named[1].lower() in allowed for host in hosts)
