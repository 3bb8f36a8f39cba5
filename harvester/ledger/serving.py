"""Which owners serve workspaces, and until when each workspace counts as served.

Every time is by the clock of leases.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from sqlalchemy import Executable, Float, Integer, Select, bindparam, cast, literal_column, select, true, update

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import LEASE_NOW
from harvester.ledger.json_rows import encode_rows, encode_values, rows_as_table, values_as_table
from harvester.ledger.schema import owners, services

_SET_SERVING = (
    update(owners)
    .where(owners.c.epoch == bindparam("of_epoch", type_=Integer))
    .values(serves=bindparam("to", type_=Integer))
)

_LIST_SERVING = (
    select(owners.c.id)
    .where(owners.c.serves == literal_column("1"), owners.c.alive_until >= LEASE_NOW)
    .order_by(owners.c.id)
)


def set_serving(tx: Transaction, epoch: int, *, serves: bool) -> None:
    """Record whether the owner of an epoch serves workspaces."""
    tx.execute(_SET_SERVING, {"of_epoch": epoch, "to": int(serves)})


def list_serving(tx: Transaction) -> list[str]:
    """List the owners that live and serve workspaces."""
    return list(tx.execute(_LIST_SERVING).scalars())


def extend_service(tx: Transaction, seconds: Mapping[str, float]) -> None:
    """Let each of these workspaces count as served for the next ``seconds``."""
    rows = sorted(seconds.items())  # several owners lock the rows of a table in one order
    tx.execute(_extend_service(tx.dialect), encode_rows(rows))


@cache
def _extend_service(dialect: Dialect) -> Executable:
    given = rows_as_table(dialect, (services.c.workspace, services.c.served_until))
    # The type is for the database: the sum of two parameters has none.
    until = cast(LEASE_NOW, Float) + given.c.served_until
    rows = select(given.c.workspace, until).where(true()).order_by(given.c.workspace)
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
