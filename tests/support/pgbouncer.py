"""PgBouncer in transaction mode: each transaction may get another connection to the server."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.postgresql import USER, PostgreSQL
from tests.support.processes import free_port, require_program, run_server, wait_until_listening
from tests.support.secret_canary import DATABASE_PASSWORD

CONNECTIONS = 2
"""How many connections to the server all clients of a database share."""


@contextmanager
def pgbouncer(server: PostgreSQL) -> Iterator[int]:
    """Run PgBouncer before a server, with its default settings of everything else; yields its port."""
    program, port = require_program("pgbouncer"), free_port()
    users, config = server.folder / "users", server.folder / "pgbouncer.ini"
    users.write_text(f'"{USER}" "{DATABASE_PASSWORD}"\n')
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\npool_mode = transaction\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {users}\ndefault_pool_size = {CONNECTIONS}\n"
    )
    with run_server(program, str(config), cwd=server.folder, **server.user) as process:
        wait_until_listening(port, process)
        yield port
