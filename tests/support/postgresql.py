"""PostgreSQL for tests: one server for each process of pytest, and a new database for each test.

``POSTGRESQL_BIN`` names the folder of the programs of another version than the installed one.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from harvester.place import DatabaseUrl
from tests.support import compiled_statements
from tests.support.processes import free_port, require_program, wait_until_listening
from tests.support.secret_canary import DATABASE_PASSWORD

compiled_statements.share_dialect(PGDialect_psycopg)

USER, SUPERUSER = "harvester", "postgres"
_DEBIAN = Path("/usr/lib/postgresql")
OPTIONS = {
    "fsync": "off",  # the machine does not fail, only the server
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "autovacuum": "off",  # it would visit databases that live for a moment
    "jit": "off",
    "deadlock_timeout": "100ms",
    "listen_addresses": "127.0.0.1",
}


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs. If there is none, CI fails and a developer's shell skips."""
    if chosen := os.environ.get("POSTGRESQL_BIN"):
        return Path(chosen).absolute()
    installed = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    return (installed[-1] if installed else Path(require_program("initdb")).resolve()).parent


def run_as_other_user() -> dict[str, Any]:
    """Return the arguments of ``Popen`` for servers that refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _is_running(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class PostgreSQL:
    """A server in a temporary folder. ``stop``, ``kill`` and ``start`` keep its port and its databases."""

    def __init__(self, options: Mapping[str, str] = OPTIONS) -> None:
        """Create and start it. The folders of pytest are closed to other users, so it has a folder elsewhere."""
        self._options = options
        self._programs = find_programs()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self.user = run_as_other_user()
        if self.user:
            os.chown(self.folder, self.user["user"], self.user["group"])
        self._read_lines = 0
        self._names = (f"ledger{number}" for number in itertools.count())
        try:
            self._create()
            self.start()
            self._create_role()
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    def _create(self) -> None:
        authentication = ("--auth-local=trust", "--auth-host=scram-sha-256", "--username", SUPERUSER)
        format_options = ("--no-locale", "--encoding=UTF8", "--no-sync", "--no-instructions")
        command = (self._programs / "initdb", "--pgdata", self.folder / "data", *authentication, *format_options)
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.user)

    def _create_role(self) -> None:
        self.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{DATABASE_PASSWORD}'")

    def start(self) -> None:
        """Start it, the first time or after ``stop``, and wait until it accepts connections."""
        options = [f"--{name}={value}" for name, value in self._options.items()]
        sockets = ("-p", str(self.port), "-k", str(self.folder))
        command = (self._programs / "postgres", "-D", self.folder / "data", *sockets, *options)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.user)
        wait_until_listening(self.port, self._process)
        while True:
            with contextlib.suppress(psycopg.OperationalError):  # it recovers
                self._admin = psycopg.connect(self._superuser_url("postgres"), autocommit=True)
                return

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it as a failure does: it aborts all connections, and recovers when it starts again.

        With SIGINT, it ends its connections, and has nothing to recover.
        """
        self._admin.close()
        self._process.send_signal(number)
        self._process.wait()

    def kill(self) -> None:
        """Kill its main process. The others notice that and end, which this waits for: they would prevent a start."""
        children = self._list_children()
        self.stop(signal.SIGKILL)
        while any(_is_running(pid) for pid in children):
            time.sleep(0.01)

    def suspend(self) -> None:
        """Suspend all its processes."""
        self._process.send_signal(signal.SIGSTOP)  # it starts no others from now on
        self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """Let all its processes continue."""
        self._signal_children(signal.SIGCONT)
        self._process.send_signal(signal.SIGCONT)

    def _signal_children(self, number: signal.Signals) -> None:
        for pid in self._list_children():
            with contextlib.suppress(ProcessLookupError):  # its connection was closed
                os.kill(pid, number)

    def _list_children(self) -> list[int]:
        pid = self._process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it, and start it again at the end."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def altered(self, database: str, change: str, restore: str) -> Iterator[None]:
        """Alter a database, and restore it at the end. Its connections are terminated, since only new ones see it."""
        self.execute(f"ALTER DATABASE {database} {change}")
        self.terminate_connections(database)
        try:
            yield
        finally:
            self.execute(f"ALTER DATABASE {database} {restore}")
            self.terminate_connections(database)

    @contextmanager
    def refusing_updates(self, database: str, sqlstate: str, message: str) -> Iterator[None]:
        """Let each update of a pair fail with an error of the server, until the end."""
        with psycopg.connect(self._superuser_url(database), autocommit=True) as connection:
            connection.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"RAISE EXCEPTION USING ERRCODE = '{sqlstate}', MESSAGE = '{message}'; END $$".encode()
            )
            connection.execute("CREATE TRIGGER refuse BEFORE UPDATE ON pair EXECUTE FUNCTION refuse()")
            try:
                yield
            finally:
                connection.execute("DROP FUNCTION refuse CASCADE")

    def close(self) -> None:
        """Stop it, and delete its databases."""
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, *, port: int | None = None) -> DatabaseUrl:
        """Return the URL of a database: by the server's socket, or by TCP with ``port``, such as a proxy's."""
        user = f"{USER}:{DATABASE_PASSWORD}"
        if port is not None:
            return DatabaseUrl(f"postgresql://{user}@127.0.0.1:{port}/{database}")
        return DatabaseUrl(f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}")

    def _superuser_url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@/{database}?host={self.folder}&port={self.port}"

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement as the superuser, outside of a transaction; returns its rows, if it has any."""
        cursor = self._admin.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def create_database(self, options: str = "") -> str:
        """Create a database that belongs to the ordinary user, and return its name."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE template0 {options}")
        return name

    @contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        """Create a database, and drop it at the end; yields its name."""
        name = self.create_database(options)
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def terminate_connections(self, database: str, *, state: str = "%") -> None:
        """Terminate the connections to a database whose state is like ``state``, and wait until they are gone."""
        chosen = "FROM pg_stat_activity WHERE datname = %s AND state LIKE %s"
        self.execute(f"SELECT pg_terminate_backend(pid, 10000) {chosen}", database, state)

    def read_errors(self) -> list[str]:
        """Return the errors that the server has logged since the last call."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        new, self._read_lines = lines[self._read_lines :], len(lines)
        return [line for line in new if "ERROR:" in line or "PANIC:" in line]
