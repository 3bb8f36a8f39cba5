"""Row locks, for databases in which several transactions write at the same time.

A transaction that may wait for others locks pairs in the order of their ids, so that none waits for another one that
waits for it. Claims, expiry and recovery skip locked pairs instead. With a single writer, none of these functions does
anything.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, select

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.json_rows import encode_rows, encode_values, rows_as_table, values_as_table
from harvester.ledger.schema import IDENTITY, about, pairs


def lock_ledger(tx: Transaction) -> None:
    """Wait for other transactions that call this, up to the end of this one."""
    if not tx.dialect.single_writer:
        tx.execute(_LOCK_LEDGER)


_LOCK_LEDGER = select(about.c.ledger_id).with_for_update()


def lock_pairs(tx: Transaction, ids: Sequence[int]) -> None:
    """Lock these pairs, so that the following statements see their last states."""
    if not tx.dialect.single_writer:
        tx.execute(_lock_pairs(tx.dialect), encode_values(ids))


@cache
def _lock_pairs(dialect: Dialect) -> Select[int]:
    named = values_as_table(dialect, pairs.c.id)
    these = select(pairs.c.id).where(pairs.c.id.in_(select(named.c.id)))
    return these.order_by(pairs.c.id).with_for_update(key_share=True)


def lock_arrived(tx: Transaction, rows: Sequence[tuple[Any, ...]]) -> None:
    """Lock the pairs whose identities are the first values of the rows."""
    if not tx.dialect.single_writer:
        tx.execute(_lock_arrived(tx.dialect), encode_rows([row[:3] for row in rows]))


@cache
def _lock_arrived(dialect: Dialect) -> Select[int]:
    arrived = rows_as_table(dialect, IDENTITY)
    same = (column == arrived.c[column.name] for column in IDENTITY)
    return select(pairs.c.id).where(*same).order_by(pairs.c.id).with_for_update(key_share=True, of=pairs)


def locked(
    dialect: Dialect, which: ColumnElement[bool], *, skip: bool = False, most: int | None = None
) -> ColumnElement[bool]:
    """Return a condition that is true for the pairs ``which``, and locks them, as part of an update.

    With ``skip``, it is false for pairs that another transaction has locked, which will change them. ``most``
    limits their number; which ones are chosen is not defined.
    """
    rows = select(pairs.c.id).where(which).limit(most)
    if dialect.single_writer:
        return which if most is None else pairs.c.id.in_(rows)
    if not skip:  # a transaction that skips waits for none
        rows = rows.order_by(pairs.c.id)
    return pairs.c.id.in_(rows.with_for_update(key_share=True, skip_locked=skip))
