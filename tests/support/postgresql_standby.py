"""A PostgreSQL server with a synchronous standby, for tests of a fail-over."""

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

from harvester.place import DatabaseUrl
from tests.support.postgresql import OPTIONS, SUPERUSER, USER, PostgreSQL

_REPLICATED = OPTIONS | {"wal_level": "replica", "max_wal_senders": "4"}


class Standby(PostgreSQL):
    """A copy of a running server that follows its changes."""

    def __init__(self, primary: PostgreSQL) -> None:
        """Copy the server, and start the copy."""
        self._primary = primary
        super().__init__(_REPLICATED)

    def _create(self) -> None:
        source = ("--host", self._primary.folder, "--port", str(self._primary.port), "--username", SUPERUSER)
        options = ("--checkpoint=fast", "--no-sync", "--write-recovery-conf")
        command = (self._programs / "pg_basebackup", "--pgdata", self.folder / "data", *source, *options)
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.user)

    def _create_role(self) -> None:
        """Do nothing: it is a copy."""

    def promote(self) -> None:
        """Let it become the primary server, and wait until it accepts changes."""
        self.execute("SELECT pg_promote()")


@contextmanager
def replicated_servers() -> Iterator[tuple[PostgreSQL, Standby, DatabaseUrl]]:
    """Start a server and its standby, without which no transaction is committed; yields the URL of a database."""
    with closing(PostgreSQL(_REPLICATED)) as primary, closing(Standby(primary)) as standby:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        while primary.execute("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            pass
        primary.execute(f"CREATE DATABASE ledger OWNER {USER} TEMPLATE template0")
        one, other = (each.url("ledger", port=each.port).url for each in (primary, standby))
        hosts = f"{one.rpartition('/')[0]},{other.rpartition('@')[2]}"
        yield primary, standby, DatabaseUrl(f"{hosts}?target_session_attrs=read-write")
