"""The ledger's tables, in SQLAlchemy Core.

A pair is always in one state. ``waiting``: its reading is due later. ``due``: it may be claimed. ``leased``: it is
leased to the ``epoch`` of an owner; in all other states its epoch is null. ``settled``: its last reading has its
outcome. An owner is a living process; it gets another epoch when it registers again, and an epoch without a row is
over. A batch is ``sealed`` until its parts are stored, or ``conflict`` if one cannot be.

A pair that is sent again begins another *round*, which an outcome of the previous round does not end. ``low_priority``
(the column ``yields``) marks readings that are neither the pair's first capture nor its final one.
"""

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
)

COPYING = 0
"""The schema of a copy that is not complete."""

NEVER = 253_402_300_799.0
"""The last second of the year 9999: a pair that was forced does not expire."""

metadata = MetaData()
_key = BigInteger().with_variant(Integer, "sqlite")
_id = String().with_variant(String(collation="C"), "postgresql")
"""Ids are compared by their bytes, in every database and language."""


about = Table(
    "about",
    metadata,
    Column("ledger_id", String, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("oldest_schema", Integer, nullable=False, server_default="8"),
)
"""The schema that this ledger has, and the oldest one whose code can still use it. ``steps`` has the schemas."""

owners = Table(
    "owner",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("alive_until", Float, nullable=False),
    Column("version", String, nullable=False),
    Column("serves", Integer, nullable=False, default=0, server_default="0"),
    Column("schema_version", Integer, nullable=False, server_default="8"),
    sqlite_autoincrement=True,
)
"""The processes that hold leases, one row each. An epoch is never reused, even after its row is deleted.

Those that ``serves`` marks divide the workspaces among themselves. A run, or another command, claims what it was given.
``schema_version`` is the schema of the process's code.
"""

pairs = Table(
    "pair",
    metadata,
    Column("id", _key, primary_key=True),
    Column("workspace", _id, nullable=False),
    Column("campaign_id", _id, nullable=False),
    Column("send_id", _id, nullable=False),
    Column("sent_at", Float),
    Column("first_seen_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("reading", String, nullable=False),
    Column("state", String, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("deferrals", Integer, nullable=False, default=0),
    Column("ending_at", Float),
    Column("epoch", Integer),
    Column("outcome", String),
    Column("verdict", String),
    Column("reason", String),
    Column("round", Integer, nullable=False, default=0, server_default="0"),
    Column("captures", Integer, nullable=False, default=0, server_default="0"),
    Column("yields", Integer, key="low_priority", nullable=False, default=0, server_default="0"),
    UniqueConstraint("workspace", "campaign_id", "send_id"),
)

IDENTITY = (pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id)

outcomes = Table(
    "outcome",
    metadata,
    Column("id", _key, primary_key=True),
    Column("pair_id", ForeignKey("pair.id"), nullable=False),
    Column("reading", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("verdict", String),
    Column("reason", String),
    Column("detail", String),
    Column("ended_at", Float, nullable=False),
    Column("batch_id", String),
)

batches = Table(
    "batch",
    metadata,
    Column("id", String, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("opened_at", Float, nullable=False),
)

parts = Table(
    "part",
    metadata,
    Column("batch_id", ForeignKey("batch.id"), primary_key=True),
    Column("dataset", String, primary_key=True),
    Column("destination", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("size_bytes", _key, nullable=False),
    Column("row_count", Integer, nullable=False),
    Column("data", LargeBinary),
    Column("stored_order", _key, unique=True),
    Column("stored_at", Float),
)

pruned_parts = Table(
    "pruned_part",
    metadata,
    Column("destination", String, primary_key=True),
    Column("parts", Integer, nullable=False),
    Column("stored_order", _key, nullable=False),
    Column("stored_at", Float, nullable=False),
)
"""For each dataset, how many of its stored parts were pruned, and the order and time of the newest one."""

workspaces = Table(
    "workspace",
    metadata,
    Column("name", _id, primary_key=True),
    Column("halted_at", Float, nullable=False),
    Column("halted_because", String, key="halt_reason", nullable=False),
)

services = Table(
    "service",
    metadata,
    Column("workspace", String, primary_key=True),
    Column("served_until", Float, nullable=False),
)
"""Until when each workspace counts as served: a while after its owner last sent a request for it, or held it.

Written only while several owners serve workspaces.
"""

plans = Table(
    "reading_plan",
    metadata,
    Column("workspace", _id, primary_key=True),
    Column("ages_days", String, nullable=False),
)

datasets = Table(
    "dataset",
    metadata,
    Column("place", String, primary_key=True),
    Column("dataset_id", String, nullable=False),
)


differences = Table(
    "clock_difference",
    metadata,
    Column("measured_at", Float, primary_key=True),
    Column("seconds", Float, nullable=False),
)
"""By how much the machine's clock was ahead of Braze's, and when by Braze's: one row, or none."""

paces = Table(
    "pace",
    metadata,
    Column("workspace", _id, primary_key=True),
    Column("calls_per_second", Float, key="requests_per_second", nullable=False),
)
"""The pace that a service last measured over hours. Pairs that it cannot read in time at this pace are at risk."""

pair_counts = Table(
    "pair_count",
    metadata,
    Column("workspace", _id, primary_key=True),
    Column("state", String, primary_key=True),
    Column("outcome", String, primary_key=True, server_default=""),
    Column("verdict", String, primary_key=True, server_default=""),
    Column("reason", String, primary_key=True, server_default=""),
    Column("captured", Integer, primary_key=True, server_default="0"),
    Column("day", Integer, primary_key=True, server_default="0"),
    Column("pairs", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""How many pairs there are of each kind; ``counts`` keeps it."""

outcome_counts = Table(
    "outcome_count",
    metadata,
    Column("outcome", String, primary_key=True),
    Column("readings", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""How many readings have each outcome; ``counts`` keeps it."""


def _add_partial_index(name: str, table: Table, columns: str, *, where: str) -> None:
    """Index only the rows in a state: claiming stays quick however many pairs are settled."""
    # As text: the syntax is the same in SQLite and PostgreSQL; SQLAlchemy's form would import both dialects.
    index = f"CREATE INDEX {name} ON {table.name} ({columns}) WHERE {where}"
    event.listen(table, "after_create", DDL(index))  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types


_add_partial_index("pair_next", pairs, "workspace, yields, expires_at, id", where="state = 'due'")
_add_partial_index("pair_open", pairs, "workspace, expires_at", where="state <> 'settled'")
_add_partial_index("pair_waiting", pairs, "workspace, due_at, captures", where="state = 'waiting'")
_add_partial_index("pair_deferred", pairs, "workspace, due_at", where="state = 'waiting' AND deferrals > 0")
_add_partial_index("pair_leased", pairs, "epoch, workspace", where="state = 'leased'")
Index("outcome_pair", outcomes.c.pair_id)  # not partial: SQLite uses no partial index for a foreign key
_add_partial_index("pair_expired", pairs, "workspace, expires_at", where="outcome = 'expired'")
_add_partial_index("pair_settled", pairs, "expires_at", where="state = 'settled'")
_add_partial_index("pair_failed", pairs, "outcome, reason, id", where="outcome = 'rejected' OR outcome = 'expired'")
Index("outcome_ended", outcomes.c.ended_at)
_add_partial_index("outcome_rejected", outcomes, "id", where="outcome = 'rejected'")
Index(
    "pair_send", pairs.c.send_id, pairs.c.workspace, pairs.c.campaign_id
)  # in the order of a search, which need not sort
_add_partial_index("batch_unstored", batches, "state, epoch", where="state <> 'stored'")
_add_partial_index("batch_stored", batches, "opened_at", where="state = 'stored'")
