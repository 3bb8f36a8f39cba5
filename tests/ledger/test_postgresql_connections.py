"""How a ledger connects to PostgreSQL: the certificate of the server, and the places of a password, are libpq's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harvester.clock import SystemClock
from harvester.errors import LedgerError
from harvester.ledger import Ledger
from harvester.place import DatabaseUrl
from tests.support.postgresql import USER, PostgreSQL
from tests.support.secret_canary import DATABASE_PASSWORD

pytestmark = pytest.mark.long


async def create_ledger(url: str) -> None:
    """Create a ledger, or open it."""
    async with await Ledger.open(DatabaseUrl(url), clock=SystemClock()):
        pass


@contextmanager
def encrypted(server: PostgreSQL, certificate) -> Iterator[None]:
    """Let a server encrypt its connections, with this certificate, until the end."""
    for file, content in (("server.key", certificate.private_key_pem), ("server.crt", certificate.cert_chain_pems[0])):
        path = server.folder / file
        path.touch(mode=0o600)
        path.write_bytes(content.bytes())
        if server.user:
            os.chown(path, server.user["user"], server.user["group"])
    changes = {"ssl_key_file": server.folder / "server.key", "ssl_cert_file": server.folder / "server.crt", "ssl": "on"}
    for name, value in changes.items():
        server.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    server.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        server.execute("ALTER SYSTEM RESET ALL")
        server.execute("SELECT pg_reload_conf()")


async def test_the_certificate_of_the_server_is_checked_if_the_url_asks_for_it(postgresql, tmp_path):
    """With ``verify-full``, another authority's certificate is refused, and so is another host's, or none."""
    import trustme  # noqa: PLC0415 - it takes a while, and few tests need it

    authority = trustme.CA()
    for name, each in (("right.pem", authority), ("wrong.pem", trustme.CA())):
        each.cert_pem.write_to_path(tmp_path / name)
    with postgresql.database() as database:
        url = f"{postgresql.url(database, port=postgresql.port).url}?sslmode=verify-full&sslrootcert={tmp_path}"
        with pytest.raises(LedgerError, match="server does not support SSL"):
            await create_ledger(f"{url}/right.pem")
        with encrypted(postgresql, authority.issue_cert("127.0.0.1")):
            await create_ledger(f"{url}/right.pem")
            with pytest.raises(LedgerError, match="certificate verify failed"):
                await create_ledger(f"{url}/wrong.pem")
        with (
            encrypted(postgresql, authority.issue_cert("db.example")),
            pytest.raises(LedgerError, match="does not match"),
        ):
            await create_ledger(f"{url}/right.pem")


async def test_a_password_may_be_in_the_files_of_libpq(postgresql, tmp_path, monkeypatch):
    """A password file or a service file keeps it out of the command line. A wrong one is an error without it."""
    passwords, services = tmp_path / "passwords", tmp_path / "services"
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with postgresql.database() as database:
        at = f"127.0.0.1:{postgresql.port}"
        write_private(passwords, f"{at}:{database}:{USER}:{DATABASE_PASSWORD}\n")
        await create_ledger(f"postgresql://{USER}@{at}/{database}")
        passwords.unlink()
        service = {"host": "127.0.0.1", "port": postgresql.port, "dbname": database, "user": USER}
        for password in (DATABASE_PASSWORD, f"not-{DATABASE_PASSWORD}"):
            lines = [f"{name}={value}" for name, value in (service | {"password": password}).items()]
            write_private(services, "\n".join(["[braze]", *lines, ""]))
            if password == DATABASE_PASSWORD:
                await create_ledger("postgresql:///?service=braze")
        with pytest.raises(LedgerError, match="password authentication failed") as refused:
            await create_ledger("postgresql:///?service=braze")
        services.unlink()
        assert DATABASE_PASSWORD not in str(refused.value)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, as libpq demands."""
    path.touch(mode=0o600)
    path.write_text(text)
