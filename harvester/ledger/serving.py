"""Which owners serve workspaces, and until when each workspace counts as served.

Every time is by the clock of leases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import (
    BindParameter,
    Executable,
    Float,
    Integer,
    Select,
    bindparam,
    cast,
    literal_column,
    select,
    true,
    update,
)

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import DUE, IN_TIME, LEASE_NOW
from harvester.ledger.json_rows import encode_values, values_as_table
from harvester.ledger.plans import list_planned_workspaces
from harvester.ledger.schema import owners, pairs, services

UNSERVED_SECONDS = 120.0
"""How long readings are due, and how long a workspace counts as served: see ``Replicas.unserved``."""

_SET_SERVES = (
    update(owners)
    .where(owners.c.epoch == bindparam("of_epoch", type_=Integer))
    .values(serves=bindparam("to", type_=Integer))
)

_LIST_REPLICAS = (
    select(owners.c.id)
    .where(owners.c.serves == literal_column("1"), owners.c.alive_until >= LEASE_NOW)
    .order_by(owners.c.id)
)


@dataclass(frozen=True, slots=True)
class Replicas:
    """The living owners that serve workspaces, the workspaces that have a plan, and those that are unserved.

    A workspace is *unserved* if a reading of it has been due for ``UNSERVED_SECONDS``, and no owner has sent a request
    for it or held its requests in that time, so that it does not count as served. If fewer than two owners serve,
    nobody records what is served, and ``unserved`` is empty.
    """

    owners: Sequence[str] = ()
    workspaces: Sequence[str] = ()
    unserved: Sequence[str] = ()


def get_replicas(tx: Transaction) -> Replicas:
    """Return which owners serve workspaces, and what they leave unserved."""
    replicas, workspaces = list_replicas(tx), sorted(list_planned_workspaces(tx))
    unserved: list[str] = []
    if len(replicas) > 1:
        values = encode_values(list_unserved(tx, workspaces)) | {"late": tx.now - UNSERVED_SECONDS}
        unserved = sorted(tx.execute(_select_late(tx.dialect), values).scalars())
    return Replicas(replicas, workspaces, unserved)


@cache
def _select_late(dialect: Dialect) -> Select[str]:
    """Select those of some workspaces that have a reading which was due before the time ``late``."""
    named = values_as_table(dialect, pairs.c.workspace)
    late: BindParameter[float] = bindparam("late", type_=Float)
    overdue = select(pairs.c.id).where(pairs.c.workspace == named.c.workspace, DUE, IN_TIME)
    overdue = overdue.where(pairs.c.due_at <= late, pairs.c.first_seen_at <= late)
    return select(named.c.workspace).where(overdue.exists())


def set_serves(tx: Transaction, epoch: int, *, serves: bool) -> None:
    """Record whether the owner of an epoch serves workspaces."""
    tx.execute(_SET_SERVES, {"of_epoch": epoch, "to": int(serves)})


def list_replicas(tx: Transaction) -> list[str]:
    """List the owners that live and serve workspaces."""
    return list(tx.execute(_LIST_REPLICAS).scalars())


def mark_served(tx: Transaction, workspaces: Sequence[str], *, seconds: float) -> None:
    """Let these workspaces count as served for the next ``seconds``. One may be named twice."""
    names = sorted(set(workspaces))  # PostgreSQL refuses a statement that inserts a row and then updates it
    tx.execute(_mark_served(tx.dialect), encode_values(names) | {"seconds": seconds})


@cache
def _mark_served(dialect: Dialect) -> Executable:
    named = values_as_table(dialect, services.c.workspace)
    # The type is for the database: the sum of two parameters has none.
    until = cast(LEASE_NOW, Float) + bindparam("seconds", type_=Float)
    # In one order, so that owners that write the same rows wait for each other only briefly.
    rows = select(named.c.workspace, until).where(true()).order_by(named.c.workspace)
    insert = dialect.insert(services).from_select(["workspace", "served_until"], rows)
    statement: Executable = insert.on_conflict_do_update(
        index_elements=["workspace"], set_={"served_until": insert.excluded.served_until}
    )
    return statement


def list_unserved(tx: Transaction, workspaces: Sequence[str]) -> list[str]:
    """List those of these workspaces that do not count as served."""
    served = set(tx.execute(_select_served(tx.dialect), encode_values(workspaces)).scalars())
    return [name for name in workspaces if name not in served]


@cache
def _select_served(dialect: Dialect) -> Select[str]:
    named = values_as_table(dialect, services.c.workspace)
    mine = services.c.workspace.in_(select(named.c.workspace))
    return select(services.c.workspace).where(mine, services.c.served_until >= LEASE_NOW)
