"""The key is sent only to a host that proves its name."""

import asyncio
import json
import os
import ssl
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from tests.support.faulty_server import answer_with, build_response, serve_script

SEND_ALL = """
import asyncio, json, sys
from harvester.braze.transport import BrazeTransport
from harvester.clock import SystemClock
from harvester.errors import ExchangeError
from harvester.model import Pair

async def send(url):
    transport = BrazeTransport(
        endpoint=url, api_key="canary-key-0123456789", connections=1, clock=SystemClock(), timeout_seconds=2
    )
    try:
        return (await transport.send_series(Pair("w", "c", "s"), length_days=1, ending_at=0)).status
    except ExchangeError as error:
        return error.cause
    finally:
        await transport.close()

async def main():
    print(json.dumps(await asyncio.gather(*map(send, sys.argv[1:]))))

asyncio.run(main())
"""


async def test_only_a_valid_certificate_for_this_host_is_accepted(tmp_path):
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
        # A process of its own, since aiohttp makes its context for TLS when it is imported.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SEND_ALL, *[server.url.replace("http:", "https:") for server in servers],
            stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent,
            env=os.environ | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")},
        )  # fmt: skip
        out, _ = await process.communicate()
    assert json.loads(out) == [200, "certificate", "certificate", "certificate", "timeout"]
    assert [len(server.requests) for server in servers] == [1, 0, 0, 0, 0]
