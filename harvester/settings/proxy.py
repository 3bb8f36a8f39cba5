"""The HTTP proxy of a process or a workspace: its URL, and which hosts are connected to directly. Reads no setting.

Addresses of this machine and the metadata services of clouds are always connected to directly. A workspace whose
endpoint is plain http is on this machine, so its key never goes through a proxy without encryption.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from harvester.errors import UsageError
from harvester.observability.redaction import register_url_secrets

DIRECT = "none"
FROM_ENVIRONMENT = "environment"
PROXY_FORM = f'must be "{DIRECT}", "{FROM_ENVIRONMENT}" or a URL such as http://proxy.example:3128'

_ALWAYS_DIRECT = (
    "localhost", "127.0.0.1", "::1", "169.254.0.0/16", "fd00:ec2::/32", "metadata.google.internal", "metadata",
)  # fmt: skip
_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^\s/?#@:]*)(?::(?P<password>[^\s/?#@:]*))?@)?"
    r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)
_NAME = re.compile(r"(?=.{1,254}$)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.ASCII | re.IGNORECASE)
_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Credentials(NamedTuple):
    """The user and the password for a proxy."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the hosts that are reached without it.

    ``address`` is its URL without credentials, for connections and for people. A host is excluded by its name, by a
    parent domain, by its address or by a network such as ``10.0.0.0/8``.
    """

    address: str
    credentials: Credentials | None = field(default=None, repr=False)
    excluded: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The URL with the credentials: it must not be shown."""
        if self.credentials is None:
            return self.address
        scheme, _, host = self.address.partition("://")
        user, password = (quote(each, safe="") for each in self.credentials)
        return f"{scheme}://{user}:{password}@{host}"

    @property
    def direct_hosts(self) -> tuple[str, ...]:
        """All hosts that are reached without the proxy."""
        return _ALWAYS_DIRECT + self.excluded

    def serves(self, url: str) -> bool:
        """Return whether a request for ``url`` goes through the proxy."""
        host = (urlsplit(url).hostname or "").rstrip(".")
        return not any(_matches(host, each) for each in self.direct_hosts)


def is_host(text: str) -> bool:
    """Return whether a text is an address in brackets or a name whose labels DNS allows: 1 to 63 characters each."""
    return text.startswith("[") or _NAME.fullmatch(text) is not None


def parse_proxy(url: str, *, excluded: tuple[str, ...] = ()) -> Proxy:
    """Parse the URL of a proxy, and mask its password from now on. Raises ``ValueError``, which never contains it."""
    found = _URL.fullmatch(url.strip())
    if found is None or int(found["port"] or 1) not in range(1, 65_536) or not is_host(found["host"]):
        raise ValueError(
            f"{PROXY_FORM}; write each of / ? # @ in its user and password as %2F %3F %23 %40, "
            "and : in its password as %3A"
            + ("; SOCKS is not supported" if url.strip().lower().startswith("socks") else "")
        )
    register_url_secrets(url.strip())
    credentials = None
    if found["user"] is not None:
        if ":" in unquote(found["user"]):
            raise ValueError("must not have a colon (%3A) in its user: basic authentication cannot send one")
        credentials = Credentials(unquote(found["user"]), unquote(found["password"] or ""))
    port = f":{found['port']}" if found["port"] else ""
    return Proxy(f"{found['scheme'].lower()}://{found['host'].lower()}{port}", credentials, excluded)


def find_environment_proxy() -> Proxy | None:
    """Return the proxy in ``HTTPS_PROXY`` or ``ALL_PROXY``, without the hosts in ``NO_PROXY``; None if there is none.

    The lower-case spelling of a variable comes first, as in curl. Raises ``UsageError``.
    """
    name = next((name for name in _VARIABLES if os.environ.get(name, "").strip()), None)
    if name is None:
        return None
    value = os.environ[name].strip()
    try:
        return parse_proxy(value if "://" in value else f"http://{value}", excluded=_list_excluded())
    except ValueError:
        raise UsageError(
            f"{name} is not the URL of an HTTP proxy such as http://proxy.example:3128; correct it, or unset it"
        ) from None


def _list_excluded() -> tuple[str, ...]:
    listed = os.environ.get("no_proxy", "") or os.environ.get("NO_PROXY", "")
    names = (each.strip().lower() for each in listed.split(","))
    hosts = (each if each == "*" else each.removeprefix("*").lstrip(".") for each in names)
    return tuple(each for each in hosts if each)


def _matches(host: str, excluded: str) -> bool:
    """Return whether a host is one of the excluded hosts: a name, a parent domain, an address, a network or ``*``."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(excluded, strict=False)
    except ValueError:
        return excluded in ("*", host) or host.endswith(f".{excluded}")
