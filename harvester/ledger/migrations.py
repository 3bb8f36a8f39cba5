"""Ledgers of earlier schemas become one of today's, in place and in one transaction: it happens whole or not at all."""

from sqlalchemy import DDL, Connection, Table, update

from harvester.errors import LedgerError
from harvester.ledger.schema import SCHEMA_VERSION, about, datasets, differences, metadata, paces, plans

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
    ),
    2: (
        "DROP INDEX pair_expired",
        "CREATE INDEX pair_expired ON pair (workspace, expires_at) WHERE outcome = 'expired'",
    ),
}
_NEW_TABLES: dict[int, tuple[Table, ...]] = {1: (plans, datasets), 2: (differences, paces)}


def upgrade(connection: Connection, version: int) -> None:
    """Bring a ledger of schema ``version`` to today's. Raises ``LedgerError`` for one that is newer, or unknown."""
    if not 1 <= version <= SCHEMA_VERSION:
        raise LedgerError(
            f"this ledger has schema {version}, this harvester knows {SCHEMA_VERSION}; upgrade the harvester"
        )
    for each in range(version, SCHEMA_VERSION):
        for step in _STEPS[each]:
            connection.execute(DDL(step))  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types
        metadata.create_all(connection, tables=_NEW_TABLES[each])
    connection.execute(update(about).values(schema_version=SCHEMA_VERSION))
