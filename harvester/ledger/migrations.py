"""Creates a ledger in a new file, or upgrades one of an earlier schema, in one transaction."""

import secrets

from sqlalchemy import DDL, Table, insert, inspect, select, text, update

from harvester.errors import LedgerError
from harvester.ledger.counts import start_counting
from harvester.ledger.database import Transaction
from harvester.ledger.schema import (
    COPYING,
    SCHEMA_VERSION,
    about,
    datasets,
    differences,
    metadata,
    outcome_counts,
    paces,
    pair_counts,
    pruned_parts,
    services,
)
from harvester.place import LedgerLocation

_STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE pair ADD COLUMN round INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE pair ADD COLUMN captures INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE pair ADD COLUMN yields INTEGER NOT NULL DEFAULT 0",
        "DROP INDEX pair_due",
        "CREATE INDEX pair_next ON pair (workspace, yields, expires_at, id) WHERE state = 'due'",
        "CREATE INDEX pair_open ON pair (workspace, expires_at, state) WHERE state <> 'settled'",
        "CREATE INDEX pair_expired ON pair (workspace) WHERE outcome = 'expired'",
        "CREATE INDEX outcome_rejected ON outcome (id) WHERE outcome = 'rejected'",
        "CREATE INDEX pair_deferred ON pair (workspace, due_at) WHERE state = 'waiting' AND deferrals > 0",
        "CREATE INDEX outcome_pair ON outcome (pair_id)",
        (
            "CREATE TABLE reading_plan (workspace VARCHAR NOT NULL, ages_days VARCHAR NOT NULL,"
            " retention_days FLOAT NOT NULL, margin_days FLOAT NOT NULL, PRIMARY KEY (workspace))"
        ),
    ),
    2: (
        "DROP INDEX pair_expired",
        "CREATE INDEX pair_expired ON pair (workspace, expires_at) WHERE outcome = 'expired'",
    ),
    3: (
        # Paused pairs continue where they stopped; pairs that follow a plan become due at the next claim.
        "UPDATE pair SET state = CASE reading WHEN 'once' THEN 'due' ELSE 'waiting' END WHERE state = 'paused'",
        "ALTER TABLE reading_plan DROP COLUMN retention_days",
        "ALTER TABLE reading_plan DROP COLUMN margin_days",
    ),
    4: (
        # Readings of open batches are released; sealed batches belong to no living epoch, so the first process that
        # recovers takes them over.
        "UPDATE pair SET state = CASE reading WHEN 'once' THEN 'due' ELSE 'waiting' END WHERE state = 'leased'",
        "DELETE FROM batch WHERE state = 'open'",
        "DROP INDEX pair_leased",
        "DROP INDEX batch_unstored",
        "ALTER TABLE pair DROP COLUMN batch_id",
        "ALTER TABLE pair ADD COLUMN epoch INTEGER",
        "ALTER TABLE batch DROP COLUMN workspace",
        "ALTER TABLE batch DROP COLUMN owner",
        "ALTER TABLE batch DROP COLUMN token",
        "ALTER TABLE batch DROP COLUMN lease_until",
        "ALTER TABLE batch RENAME COLUMN claimed_at TO opened_at",
        "ALTER TABLE batch ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX pair_leased ON pair (epoch, workspace) WHERE state = 'leased'",
        "CREATE INDEX batch_unstored ON batch (state, epoch) WHERE state <> 'stored'",
        (
            "CREATE TABLE owner (epoch INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, id VARCHAR NOT NULL,"
            " alive_until FLOAT NOT NULL, version VARCHAR NOT NULL, UNIQUE (id))"
        ),
        (
            "CREATE TABLE new_part (batch_id VARCHAR NOT NULL, dataset VARCHAR NOT NULL, destination VARCHAR NOT NULL,"
            " name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, size_bytes INTEGER NOT NULL, row_count INTEGER NOT NULL,"
            " data BLOB, stored_order INTEGER, stored_at FLOAT, PRIMARY KEY (batch_id, dataset, destination),"
            " FOREIGN KEY(batch_id) REFERENCES batch (id), UNIQUE (stored_order))"
        ),
        (
            "INSERT INTO new_part SELECT batch_id, dataset, destination, name, sha256, size_bytes, row_count, data,"
            " stored_order, stored_at FROM part"
        ),
        "DROP TABLE part",
        "ALTER TABLE new_part RENAME TO part",
    ),
    5: (
        "DROP INDEX pair_waiting",
        "CREATE INDEX pair_waiting ON pair (workspace, due_at, captures) WHERE state = 'waiting'",
        "CREATE INDEX pair_send ON pair (send_id, workspace, campaign_id)",
        "CREATE INDEX pair_failed ON pair (outcome, reason, id) WHERE outcome = 'rejected' OR outcome = 'expired'",
    ),
    6: (
        "CREATE INDEX pair_settled ON pair (expires_at) WHERE state = 'settled'",
        "CREATE INDEX outcome_ended ON outcome (ended_at)",
        "CREATE INDEX batch_stored ON batch (opened_at) WHERE state = 'stored'",
    ),
    7: (
        "ALTER TABLE owner ADD COLUMN serves INTEGER NOT NULL DEFAULT 0",
        "DELETE FROM dataset WHERE rowid NOT IN (SELECT max(rowid) FROM dataset GROUP BY dataset_id)",
    ),
}
_NEW_TABLES: dict[int, tuple[Table, ...]] = {
    1: (datasets,),
    2: (differences, paces),
    3: (),
    4: (),
    5: (pair_counts, outcome_counts),
    6: (pruned_parts,),
    7: (services,),
}
_COUNTS_SINCE = 6
"""The first schema whose ledgers keep counts."""


def find_id(tx: Transaction) -> str | None:
    """Return the ledger's id; None for a file without the current schema."""
    if not inspect(tx.connection).has_table(about.name):
        return None
    ledger_id, version = tx.execute(select(about.c.ledger_id, about.c.schema_version)).one()
    return ledger_id if version == SCHEMA_VERSION else None


def get_id(tx: Transaction, location: LedgerLocation) -> str:
    """Return the ledger's id. Raises ``LedgerError`` for a ledger without the current schema."""
    ledger_id = find_id(tx)
    if ledger_id is None:
        raise LedgerError(
            f"{location} is not a ledger of this version; to upgrade an earlier one, run harvester status"
        )
    return ledger_id


def prepare(tx: Transaction) -> str:
    """Create the tables of a new ledger, or upgrade an older one; returns the ledger's id. Raises ``LedgerError``."""
    if tx.dialect.lock_schema:
        tx.execute(text(tx.dialect.lock_schema))
    if not inspect(tx.connection).has_table(about.name):
        create_tables(tx)
        start_counting(tx)
        tx.execute(insert(about).values(ledger_id=secrets.token_hex(16), schema_version=SCHEMA_VERSION))
    ledger_id, version = tx.execute(select(about.c.ledger_id, about.c.schema_version)).one()
    if version != SCHEMA_VERSION:
        _upgrade(tx, version)
    return str(ledger_id)


def has_ledger(tx: Transaction) -> bool:
    """Return whether there is a ledger, of any schema."""
    return inspect(tx.connection).has_table(about.name)


def create_tables(tx: Transaction) -> None:
    """Create the tables of a ledger in an empty database. Raises ``LedgerError`` if there are other tables."""
    tables = set(inspect(tx.connection).get_table_names())
    if tables if tx.dialect.single_writer else tables & metadata.tables.keys():  # a server's may contain others
        raise LedgerError("this is a database of another program; name another one with --state")
    metadata.create_all(tx.connection, checkfirst=False)  # there is none yet
    for statement in tx.dialect.after_create:
        tx.execute(text(statement))


def try_to_create(tx: Transaction) -> str:
    """Create a ledger, and undo it in the same transaction; returns the id that it had. Raises ``LedgerError``."""
    with tx.connection.begin_nested() as savepoint:
        ledger_id = prepare(tx)
        savepoint.rollback()
    return ledger_id


def _upgrade(tx: Transaction, version: int) -> None:
    """Upgrade a ledger of schema ``version``. Raises ``LedgerError`` for a newer or unknown one."""
    if version == COPYING:
        raise LedgerError("this copy of a ledger is not complete; repeat the harvester ledger copy that created it")
    if not 1 <= version <= SCHEMA_VERSION:
        raise LedgerError(
            f"this ledger has schema {version}, this harvester supports {SCHEMA_VERSION}; upgrade harvester"
        )
    for each in range(version, SCHEMA_VERSION):
        for step in _STEPS[each]:
            tx.execute(DDL(step))  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types
        metadata.create_all(tx.connection, tables=_NEW_TABLES[each])
    if version < _COUNTS_SINCE:
        start_counting(tx)
    tx.execute(update(about).values(schema_version=SCHEMA_VERSION))
