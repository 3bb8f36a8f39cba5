"""Squid, a real HTTP proxy: with and without a password, behind TLS, and inspecting TLS as companies do.

It is one process with a port for each kind. It alone knows the names of the servers behind it.
"""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import free_port, require_program, run_server, wait_until_listening
from tests.support.secret_canary import PROXY_PASSWORD

BRAZE_HOST, STORE_HOST = "rest.fra-01.braze.eu", "localhost.example"  # moto takes lake.example for the bucket lake
USER = "someone"
_HELPERS = Path("/usr/lib/squid")
_CONFIG = """
http_port 127.0.0.1:{open} name=open
http_port 127.0.0.1:{password} name=password
https_port 127.0.0.1:{encrypted} name=encrypted tls-cert={folder}/proxy.pem
http_port 127.0.0.1:{inspecting} name=inspecting ssl-bump tls-cert={folder}/company.pem tls-key={folder}/company.key \
generate-host-certificates=on
sslcrtd_program {helpers}/security_file_certgen -s {folder}/certificates -M 4MB
sslcrtd_children 1 startup=1
tls_outgoing_options cafile={folder}/internet.pem
acl client_hello at_step SslBump1
ssl_bump peek client_hello
ssl_bump bump all
auth_param basic program {helpers}/basic_ncsa_auth {folder}/passwords
auth_param basic children 1 startup=1
acl needs_password myportname password
acl signed_in proxy_auth REQUIRED
acl forbidden port 1
http_access deny forbidden
http_access deny needs_password !signed_in
http_access allow all
hosts_file {folder}/hosts
cache deny all
pinger_enable off
netdb_filename none
pid_filename none
coredump_dir none
visible_hostname proxy
access_log none
cache_log {folder}/cache.log
"""


@dataclass(frozen=True)
class WebProxy:
    """A running proxy: its URLs, and the certificates of both sides."""

    open: str
    password: str
    """Its user is ``USER``, its password ``PROXY_PASSWORD``."""
    encrypted: str
    inspecting: str
    internet_ca: Path
    """The authority of the servers behind it, and of the proxy's own certificate."""
    company_ca: Path
    """The authority of the certificates that the inspecting port shows."""
    server_certificate: Path

    def with_login(self, password: str = PROXY_PASSWORD) -> str:
        """Return the URL of the port that needs a password."""
        return self.password.replace("://", f"://{USER}:{password}@")

    def create_tls(self) -> ssl.SSLContext:
        """Return the context of a server behind the proxy, for the names that only the proxy knows."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server_certificate)
        return context


@contextmanager
def run_web_proxy() -> Iterator[WebProxy]:
    """Run the proxy; its folder is open to everybody, since it gives up the rights of root."""
    import trustme  # noqa: PLC0415 - it takes a while, and no other test needs it

    squid, openssl = require_program("squid"), require_program("openssl")
    if not (_HELPERS / "security_file_certgen").exists() and not os.environ.get("CI"):
        pytest.skip("squid-openssl is not installed")
    folder = Path(tempfile.mkdtemp(prefix="harvester-proxy-"))
    ports = {kind: free_port() for kind in ("open", "password", "encrypted", "inspecting")}
    internet, company = trustme.CA(), trustme.CA(organization_name="company")
    internet.cert_pem.write_to_path(folder / "internet.pem")
    internet.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "proxy.pem")
    internet.issue_cert(BRAZE_HOST, STORE_HOST).private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    company.cert_pem.write_to_path(folder / "company.pem")
    company.private_key_pem.write_to_path(folder / "company.key")
    hashed = subprocess.run([openssl, "passwd", "-apr1", PROXY_PASSWORD], check=True, capture_output=True, text=True)
    (folder / "passwords").write_text(f"{USER}:{hashed.stdout}")
    (folder / "hosts").write_text(f"127.0.0.1 {BRAZE_HOST} {STORE_HOST}\n")
    (folder / "squid.conf").write_text(_CONFIG.format(folder=folder, helpers=_HELPERS, **ports))
    subprocess.run(
        [_HELPERS / "security_file_certgen", "-c", "-s", folder / "certificates", "-M", "4MB"],
        check=True, capture_output=True,
    )  # fmt: skip
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    name = f"harvester{ports['open']}"
    urls = {kind: f"{'https' if kind == 'encrypted' else 'http'}://127.0.0.1:{port}" for kind, port in ports.items()}
    certificates = (folder / "internet.pem", folder / "company.pem", folder / "server.pem")
    try:
        with run_server(squid, "-N", "-n", name, "-f", str(folder / "squid.conf")) as process:
            wait_until_listening(ports["inspecting"], process)
            yield WebProxy(urls["open"], urls["password"], urls["encrypted"], urls["inspecting"], *certificates)
    finally:
        shutil.rmtree(folder)
        for path in Path("/dev/shm").glob(f"{name}-*"):  # squid's shared memory outlives a kill
            path.unlink()


@asynccontextmanager
async def serve_tls(proxy: WebProxy, port: int) -> AsyncIterator[int]:
    """Serve the plain server on ``port`` over TLS, under the names that only the proxy knows; yield the port for it."""
    tasks: set[asyncio.Task] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):  # a connection that is open at the end
            plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(copy(reader, plain_writer), copy(plain_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=proxy.create_tls())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
