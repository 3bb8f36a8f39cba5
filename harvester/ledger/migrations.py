"""Creates a ledger in a new file, or upgrades one of an earlier schema, in one transaction."""

import secrets

from sqlalchemy import DDL, Table, insert, inspect, select, update

from harvester.errors import LedgerError
from harvester.ledger.database import Transaction
from harvester.ledger.schema import SCHEMA_VERSION, about, datasets, differences, metadata, paces

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
}
_NEW_TABLES: dict[int, tuple[Table, ...]] = {1: (datasets,), 2: (differences, paces), 3: ()}


def find_id(tx: Transaction) -> str | None:
    """Return the ledger's id; None for a file without the current schema."""
    if not inspect(tx.connection).has_table(about.name):
        return None
    ledger_id, version = tx.execute(select(about.c.ledger_id, about.c.schema_version)).one()
    return ledger_id if version == SCHEMA_VERSION else None


def prepare(tx: Transaction) -> str:
    """Create the tables of a new ledger, or upgrade an older one; returns the ledger's id. Raises ``LedgerError``."""
    tables = set(inspect(tx.connection).get_table_names())
    if about.name not in tables:
        if tables:
            raise LedgerError("this file is a database of another program; name another file with --state")
        metadata.create_all(tx.connection)
        tx.execute(insert(about).values(ledger_id=secrets.token_hex(16), schema_version=SCHEMA_VERSION))
    ledger_id, version = tx.execute(select(about.c.ledger_id, about.c.schema_version)).one()
    if version != SCHEMA_VERSION:
        _upgrade(tx, version)
    return str(ledger_id)


def _upgrade(tx: Transaction, version: int) -> None:
    """Upgrade a ledger of schema ``version``. Raises ``LedgerError`` for a newer or unknown one."""
    if not 1 <= version <= SCHEMA_VERSION:
        raise LedgerError(
            f"this ledger has schema {version}, this harvester supports {SCHEMA_VERSION}; upgrade harvester"
        )
    for each in range(version, SCHEMA_VERSION):
        for step in _STEPS[each]:
            tx.execute(DDL(step))  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types
        metadata.create_all(tx.connection, tables=_NEW_TABLES[each])
    tx.execute(update(about).values(schema_version=SCHEMA_VERSION))
