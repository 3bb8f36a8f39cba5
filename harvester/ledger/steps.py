"""The steps from each schema of the ledger to the next one. A new schema is one more step here.

A step has two phases, so that versions of harvester can replace each other one process at a time. The *expand* phase
adds what its schema needs. The *contract* phase removes what only earlier schemas need, once no process with an earlier
schema lives. ``migrations`` applies them.
"""

from dataclasses import dataclass

from sqlalchemy import Table

from harvester.ledger.schema import (
    datasets,
    differences,
    outcome_counts,
    paces,
    pair_counts,
    pruned_parts,
    services,
)


@dataclass(frozen=True, slots=True)
class Step:
    """The change from the previous schema: statements of both phases, which all databases understand.

    ``expand`` also creates ``new_tables``. After it, the code of earlier schemas must still work, unless
    ``stops_others``: then it is applied only while no process uses the ledger. A ledger can get the expand phases of
    several steps before their contract phases, so an expand phase must not need the contract phase of an earlier step.
    Each phase is one transaction, which holds up others that need the same tables.
    """

    expand: tuple[str, ...] = ()
    new_tables: tuple[Table, ...] = ()
    contract: tuple[str, ...] = ()
    stops_others: bool = False


STEPS: dict[int, Step] = {
    2: Step(
        expand=(
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
        new_tables=(datasets,),
        stops_others=True,
    ),
    3: Step(
        expand=(
            "DROP INDEX pair_expired",
            "CREATE INDEX pair_expired ON pair (workspace, expires_at) WHERE outcome = 'expired'",
        ),
        new_tables=(differences, paces),
        stops_others=True,
    ),
    4: Step(
        expand=(
            # Paused pairs continue where they stopped; pairs that follow a plan become due at the next claim.
            "UPDATE pair SET state = CASE reading WHEN 'once' THEN 'due' ELSE 'waiting' END WHERE state = 'paused'",
            "ALTER TABLE reading_plan DROP COLUMN retention_days",
            "ALTER TABLE reading_plan DROP COLUMN margin_days",
        ),
        stops_others=True,
    ),
    5: Step(
        expand=(
            # Readings of open batches are released; sealed batches belong to no living epoch, so the first process
            # that recovers takes them over.
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
                "CREATE TABLE new_part (batch_id VARCHAR NOT NULL, dataset VARCHAR NOT NULL,"
                " destination VARCHAR NOT NULL, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL,"
                " size_bytes INTEGER NOT NULL, row_count INTEGER NOT NULL, data BLOB, stored_order INTEGER,"
                " stored_at FLOAT, PRIMARY KEY (batch_id, dataset, destination),"
                " FOREIGN KEY(batch_id) REFERENCES batch (id), UNIQUE (stored_order))"
            ),
            (
                "INSERT INTO new_part SELECT batch_id, dataset, destination, name, sha256, size_bytes, row_count,"
                " data, stored_order, stored_at FROM part"
            ),
            "DROP TABLE part",
            "ALTER TABLE new_part RENAME TO part",
        ),
        stops_others=True,
    ),
    6: Step(
        expand=(
            "DROP INDEX pair_waiting",
            "CREATE INDEX pair_waiting ON pair (workspace, due_at, captures) WHERE state = 'waiting'",
            "CREATE INDEX pair_send ON pair (send_id, workspace, campaign_id)",
            (
                "CREATE INDEX pair_failed ON pair (outcome, reason, id)"
                " WHERE outcome = 'rejected' OR outcome = 'expired'"
            ),
        ),
        new_tables=(pair_counts, outcome_counts),
        stops_others=True,
    ),
    7: Step(
        expand=(
            "CREATE INDEX pair_settled ON pair (expires_at) WHERE state = 'settled'",
            "CREATE INDEX outcome_ended ON outcome (ended_at)",
            "CREATE INDEX batch_stored ON batch (opened_at) WHERE state = 'stored'",
        ),
        new_tables=(pruned_parts,),
        stops_others=True,
    ),
    8: Step(
        expand=(
            "ALTER TABLE owner ADD COLUMN serves INTEGER NOT NULL DEFAULT 0",
            "DELETE FROM dataset WHERE rowid NOT IN (SELECT max(rowid) FROM dataset GROUP BY dataset_id)",
        ),
        new_tables=(services,),
        stops_others=True,
    ),
    9: Step(
        expand=(
            "ALTER TABLE about ADD COLUMN oldest_schema INTEGER NOT NULL DEFAULT 8",
            "ALTER TABLE owner ADD COLUMN schema_version INTEGER NOT NULL DEFAULT 8",
            "DROP INDEX pair_open",
            "CREATE INDEX pair_open ON pair (workspace, expires_at) WHERE state <> 'settled'",
        ),
    ),
}
"""The step to each schema. The first schema has none."""

COUNTS_SINCE = 6
"""The first schema whose ledgers keep counts."""

OWNERS_SINCE = 5
"""The first schema whose ledgers have owners."""

MOVED = 2**31 - 1
"""The oldest schema of a ledger that was copied elsewhere: no code can use it."""


def get_newest_schema() -> int:
    """Return the schema of this code."""
    return max(STEPS)


def get_oldest_schema() -> int:
    """Return the oldest schema whose code can use a ledger to which all steps were applied."""
    return max((schema for schema, step in STEPS.items() if step.contract), default=8)


def explain_newer(oldest_schema: int) -> str:
    """Return why this code cannot use a ledger that needs a newer schema, and what to do."""
    if oldest_schema == MOVED:
        return "was copied elsewhere with harvester ledger copy: name the copy with --state, or copy it once more"
    return f"needs schema {oldest_schema}, this harvester supports {get_newest_schema()}; upgrade harvester"
