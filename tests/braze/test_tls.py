"""The key is sent only to a host that proves its name."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from harvester.braze.transport import BrazeTransport
from harvester.clock import SystemClock
from harvester.errors import ExchangeError
from harvester.model import Pair
from tests.support.faulty_server import answer_with, build_response, serve_script

KEY = "canary-key-0123456789"


async def send(url):
    """Send one request; returns the status of the response, or the cause of the failure."""
    transport = BrazeTransport(endpoint=url, api_key=KEY, connections=1, clock=SystemClock(), timeout_seconds=2)
    try:
        return (await transport.send_series(Pair("w", "c", "s"), length_days=1, ending_at=0)).status
    except ExchangeError as error:
        return error.cause
    finally:
        await transport.close()


async def test_only_a_valid_certificate_for_this_host_is_accepted(tmp_path, monkeypatch):
    """No byte of a request is sent if the certificate is self-signed, expired, for another host, or missing."""
    import trustme  # noqa: PLC0415 - it takes a while, and no other test needs it

    trusted, unknown = trustme.CA(), trustme.CA()
    trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificates = [
        trusted.issue_cert("127.0.0.1"),
        unknown.issue_cert("127.0.0.1"),
        trusted.issue_cert(
            "127.0.0.1", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 2, 1, tzinfo=UTC)
        ),
        trusted.issue_cert("rest.fra-01.braze.eu"),
    ]
    async with AsyncExitStack() as stack:
        servers = []
        for certificate in certificates:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            certificate.configure_cert(tls)
            servers.append(await stack.enter_async_context(serve_script(answer_with(build_response(b"{}")), tls=tls)))
        servers.append(await stack.enter_async_context(serve_script(answer_with(build_response(b"{}")))))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        results = await asyncio.gather(*(send(server.url.replace("http:", "https:")) for server in servers))
    assert results == [200, "certificate", "certificate", "certificate", "timeout"]
    assert [len(server.requests) for server in servers] == [1, 0, 0, 0, 0]
