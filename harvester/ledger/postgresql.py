"""A ledger in a PostgreSQL database, through psycopg.

Nothing lives longer than a transaction, so PgBouncer may give each transaction another connection of the server. The
first statement of a transaction sets its timeouts, and returns the server's time and the transaction's id. If the reply
to a COMMIT is lost, the server still knows by that id whether it was committed.
"""

from collections.abc import Collection

from sqlalchemy import JSON, Connection, Engine, Float, cast, create_engine, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import DBAPIError

from harvester.errors import LedgerError, LedgerLost, UsageError, install_hint
from harvester.ledger.dialect import Dialect, TransactionStart
from harvester.ledger.postgresql_counts import SUMMARIZE_COUNTS, count_statements
from harvester.ledger.postgresql_transactions import BEGIN, was_committed
from harvester.ledger.schema import outcomes, owners, pairs
from harvester.place import ESCAPE_HINT, DatabaseUrl

try:
    import psycopg

    from harvester.ledger.postgresql_connection import Connector, WatchedConnection
except ImportError:
    psycopg = None  # type: ignore[assignment] # it is an extra

_CONNECTION = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "harvester",
    "prepare_threshold": None,  # PgBouncer gives the next transaction another connection of the server
}

_ALWAYS = {"client_encoding": "utf8"}
"""What neither the URL nor the environment can change: psycopg returns text in some other encodings as bytes."""

_HAS_STATISTICS = text("SELECT reltuples FROM pg_class WHERE oid = CAST('pair' AS regclass)")

_TRANSIENT_CLASSES = ("08", "40", "53", "57", "58")
"""Connection failures, rolled back transactions, resources, interventions of an operator, failures of the system."""

_LOCK_TIMEOUT = "55P03"
_TRANSIENT = frozenset({"25006", _LOCK_TIMEOUT})
"""A server that is read-only, as a standby is during a fail-over, and a lock that was not available."""

_OUTDATED_SEQUENCES = (
    "the sequences of the tables are behind their rows, as after a logical replication: stop all processes, and set "
    "pair_id_seq, outcome_id_seq and owner_epoch_seq to the highest id and epoch with setval"
)

_HINTS = {
    "password authentication failed": f"in a URL, {ESCAPE_HINT}",
    "no password supplied": "use PGPASSFILE, or a file with the whole URL (--state-file)",
    "permission denied for schema": "make the user the owner of the database, or grant it CREATE on the schema",
    "permission denied for table": "make the user the owner of all tables of the ledger, or connect as their owner",
    "no schema has been selected": "create the schema that search_path names, and grant the user CREATE on it",
    "no unique or exclusion constraint": "it was not restored completely; repeat that into an empty database",
    **dict.fromkeys(('"pair_pkey"', '"outcome_pkey"', '"owner_pkey"'), _OUTDATED_SEQUENCES),
    "connection timeout expired": "check the address, the firewall and, on Kubernetes, networkPolicy.egressPorts",
}
"""What to do about a message of the server or of libpq that contains one of these texts."""

_LOCK_SCHEMA = (
    "SELECT set_config('lock_timeout', '0', true)",  # the other transaction may take long
    "SELECT pg_advisory_xact_lock(7512943807)",
    # While it waits for a table, it blocks others.
    "SELECT set_config('lock_timeout', '2s', true)",
)

_CHECK_ENCODING = """
DO $$ BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE 'its encoding is %, but must be UTF8; create another one WITH ENCODING ''UTF8'' TEMPLATE template0',
            current_setting('server_encoding');
    END IF;
END $$"""

_SET_AUTOVACUUM = tuple(
    f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05)"
    for table in ("pair", "outcome", "pair_count", "outcome_count", "part", "batch")
)
"""Most rows of these tables change several times, so the default, a fifth of a table, is too rare."""


_LIFT_TIMEOUT = text("SELECT set_config('statement_timeout', '0', true)")


def _lift_timeout(connection: Connection) -> None:
    connection.execute(_LIFT_TIMEOUT)
    _find_connection(connection).limited = False


def _find_connection(connection: Connection) -> "WatchedConnection":
    return connection.connection.driver_connection  # type: ignore[return-value] # ``connect`` creates no other


def _analyze_pairs(connection: Connection) -> None:
    """Analyze the table if the server never did: it would join a new table with arrivals by loops for a minute."""
    if connection.execute(_HAS_STATISTICS).scalar_one() < 0:
        connection.execute(text("ANALYZE pair"))


def _continue_ids(connection: Connection) -> None:
    for table, column in ((pairs, pairs.c.id), (outcomes, outcomes.c.id), (owners, owners.c.epoch)):
        sequence, last = func.pg_get_serial_sequence(table.name, column.name), func.max(column)
        connection.execute(select(func.setval(sequence, last)).having(last.is_not(None)))


DIALECT = Dialect(
    single_writer=False,
    insert=insert,
    json_elements=lambda rows: func.jsonb_array_elements(cast(rows, JSONB)),  # JSON would be parsed for each column
    json_row=func.json_build_array,
    json_rows=func.json_agg,
    json_value=lambda value: func.coalesce(value, cast(literal_column("'[]'"), JSON)),
    analyze_pairs=_analyze_pairs,
    continue_ids=_continue_ids,
    exact_float=lambda column: cast(column, Float),  # PostgreSQL's JSON has the shortest text that is exact
    whole="floor",
    count_statements=count_statements,
    summarize_counts=SUMMARIZE_COUNTS,
    lock_schema=_LOCK_SCHEMA,
    lock_about="LOCK TABLE about IN ACCESS EXCLUSIVE MODE",
    lift_timeout=_lift_timeout,
    after_create=(_CHECK_ENCODING, *_SET_AUTOVACUUM),
)


class PostgreSQL:
    """The database of a ledger."""

    dialect = DIALECT
    lost: LedgerLost | None = None

    def __init__(self, location: DatabaseUrl) -> None:
        """Connect at the first use. Raises ``UsageError`` without psycopg, or for an invalid URL."""
        self.location = location
        if psycopg is None:
            raise UsageError(f"a ledger in PostgreSQL needs psycopg; {install_hint('postgresql')}")
        try:
            given = psycopg.conninfo.conninfo_to_dict(location.url)
        except psycopg.ProgrammingError:
            problem = f"the URL of the ledger's database is invalid; check its parameters, and {ESCAPE_HINT}"
            raise UsageError(problem) from None
        self._connector = Connector(_CONNECTION | given | _ALWAYS)
        self._ledger_id: str | None = None

    def connect(self, *, read_only: bool) -> Engine:
        """Return an engine with one connection, which is opened again after it was lost."""
        engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connector.connect,
            pool_size=1,
            max_overflow=0,
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        )
        if read_only:
            engine = engine.execution_options(postgresql_readonly=True)
        return engine

    def begin(self, connection: Connection, *, writes: bool) -> TransactionStart:
        """Set the timeouts of a transaction; returns the server's time, the id of one that writes, and the schema.

        Raises ``LedgerError`` for another ledger than that which was opened.
        """
        _find_connection(connection).limited = True
        expected = self._ledger_id
        lease_now, transaction_id, oldest_schema, ledger_id, *_ = connection.execute(
            BEGIN[writes, expected is not None]
        ).one()
        if ledger_id != expected:
            raise LedgerError(
                f"the ledger {self.location} is not the one that this process opened: its address leads to another "
                "database now. Correct the address, or start the process again to use this ledger"
            )
        return TransactionStart(lease_now, transaction_id, oldest_schema)

    def was_committed(self, connection: Connection, transaction_id: str) -> bool | None:
        """Return whether a transaction was committed; None while it is in progress."""
        return was_committed(connection, transaction_id)

    def stop_waiting(self) -> None:
        """Wait only seconds from now on for a server that does not reply."""
        self._connector.stop_waiting()

    def watch(self, ledger_id: str) -> None:
        """Read the oldest schema and the ledger's id in each transaction from now on."""
        self._ledger_id = ledger_id

    def is_lost(self) -> bool:
        """Return False."""
        return False

    def raise_if_lost(self, engine: Engine, now: float) -> None:
        """Do nothing."""

    def create_owner(self, name: str) -> "DatabaseOwner":
        """Return an owner that is known to live by its lease only."""
        return DatabaseOwner(name)

    def list_living(self, leased: Collection[str]) -> list[str]:
        """Return the owners whose leases have not ended: the server knows no others."""
        return sorted(leased)

    def is_transient(self, error: DBAPIError) -> bool:
        """Return whether the server may be able to execute the same transaction later."""
        state = getattr(error.orig, "sqlstate", None)
        if state is None:
            return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)
        return state in _TRANSIENT or state.startswith(_TRANSIENT_CLASSES)

    def describe(self, error: DBAPIError) -> str:
        """Return the server's message without the details that it adds in further lines."""
        message = str(error.orig).strip().partition("\n")[0]
        if getattr(error.orig, "sqlstate", None) == _LOCK_TIMEOUT:
            return f"another transaction, for example of pg_dump, has locked it for too long ({message})"
        return "; ".join([message, *(hint for part, hint in _HINTS.items() if part in message)])


class DatabaseOwner:
    """An owner of leases. No process can see that another one on another machine has ended, so leases must end."""

    def __init__(self, name: str) -> None:
        """Be the owner of this name."""
        self.name = name

    def list_dead(self, owners: object) -> list[str]:
        """Return nothing."""
        del owners
        return []

    def release(self) -> None:
        """Do nothing: the ledger has deleted this owner."""
