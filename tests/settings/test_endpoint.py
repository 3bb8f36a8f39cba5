"""The endpoint: a key is sent only to an encrypted, known host, or to this machine."""

import pytest

from harvester.settings import BRAZE_HOSTS
from tests.support.settings import BRAZE, load_error, load_workspace


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [(f"https://{host}", f"https://{host}") for host in sorted(BRAZE_HOSTS)]
    + [
        ("https://REST.fra-01.Braze.EU/", BRAZE),
        (f"{BRAZE}:443", f"{BRAZE}:443"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_known_hosts_and_loopback_are_accepted(endpoint, expected):
    """Every host of Braze, and this machine, can be an endpoint without a flag."""
    assert load_workspace(endpoint=endpoint).endpoint == expected


UNKNOWN = [
    "https://evil.example",
    "https://rest.fra-01.braze.eu.",
    "https://rest.fra-01.braze.eu.evil.example",
    "https://203.0.113.7",
    "https://[2001:db8::7]",
    "https://127.0.0.1.evil.example",
]


@pytest.mark.parametrize("endpoint", UNKNOWN)
def test_an_unknown_host_needs_the_flag(endpoint):
    """The key is sent to no unknown host, unless the user allows it with ``--allow-unknown-host``."""
    assert "--allow-unknown-host" in load_error(endpoint=endpoint)
    assert load_workspace(endpoint=endpoint, allow_unknown_host=True).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://rest.fra-01.braze.eu",
        "http://evil.example",
        "http://10.0.0.1",
        "http://127.0.0.2",
        "http://localhost.",
        "http://127.0.0.1@evil.example",
        "https://user@rest.fra-01.braze.eu",
        "https://user:pass@rest.fra-01.braze.eu",
        "https://rest.fra-01.braze.eu/sends",
        "https://rest.fra-01.braze.eu//",
        "https://rest.fra-01.braze.eu?x=1",
        "https://rest.fra-01.braze.eu#x",
        "https://rest.fra-01.braze.eu\\@evil.example",
        "https://rest.fra-01.braze.eu:port",
        "https://rest.fra-01.braze.eu\n",
        "https://rest.fra\t-01.braze.eu",
        "https://rest.fra-01.braze.eu ",
        "https://re\N{LATIN SMALL LETTER LONG S}t.fra-01.braze.eu",
        "https://a..b.example",
        "https://.example",
        f"https://{'a' * 64}.example",
        "https://[::1",
        "https://",
        "rest.fra-01.braze.eu",
        "ftp://127.0.0.1",
        "",
    ],
)
def test_an_endpoint_that_is_not_an_origin_or_not_encrypted_is_refused_even_with_the_flag(endpoint):
    """The flag allows another host, but no plain HTTP to it, no path and no user name."""
    assert "workspaces.default.endpoint" in load_error(endpoint=endpoint, allow_unknown_host=True)
