"""The balance of a ledger, and its counts of readings, batches and parts. Every function only reads."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from harvester.books import Books
from harvester.ledger.counts import ACCEPTED, DEFERRED_STATE, OPEN
from harvester.ledger.database import Transaction
from harvester.ledger.datasets import list_places
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import LEASED, OVERDUE, UNSETTLED, WAITING
from harvester.ledger.json_rows import (
    decode_rows,
    encode_rows,
    encode_values,
    rows_as_table,
    select_as_json,
    values_as_table,
)
from harvester.ledger.schema import IDENTITY, batches, outcome_counts, pair_counts, pairs, parts, workspaces
from harvester.model import GRACE_SECONDS, Pair, Verdict
from harvester.schedule import ONCE

_NUMBER = func.sum(pair_counts.c.pairs).label("pairs")
_SHAPE = [pair_counts.c[name] for name in ("workspace", "state", "outcome", "verdict", "reason", "captured")]
_OPEN_OF_WORKSPACE = (
    select(pair_counts.c.workspace)
    .where(pair_counts.c.workspace == bindparam("of_workspace", type_=String), OPEN)
    .group_by(pair_counts.c.workspace)
    .having(_NUMBER > 0)
)
_UNFINISHED = (
    select(pair_counts.c.workspace)
    .where(or_(OPEN, pair_counts.c.outcome == "expired"))
    .group_by(pair_counts.c.workspace)
    .having(_NUMBER > 0)
)
_READINGS = cast(func.sum(outcome_counts.c.readings), BigInteger)
_COUNT_OUTCOMES = select(outcome_counts.c.outcome, _READINGS).group_by(outcome_counts.c.outcome)
_SHAPES = select(*_SHAPE, _NUMBER).group_by(*_SHAPE).having(_NUMBER > 0)


def get_books(tx: Transaction) -> Books:
    """Return the number of pairs by state and outcome."""
    return Books.sum(get_books_by_workspace(tx).values())


def get_books_by_workspace(tx: Transaction) -> dict[str, Books]:
    """Return the number of pairs of each workspace by state and outcome."""
    shapes: dict[str, list[Sequence[Any]]] = {}
    for workspace, *shape in tx.execute(_SHAPES):
        shapes.setdefault(workspace, []).append(shape)
    next_readings = _find_next_readings(tx, shapes)
    return {name: _balance(each, next_readings.get(name)) for name, each in shapes.items()}


def _balance(shapes: Iterable[Sequence[Any]], next_reading_at: float | None) -> Books:
    captured: dict[Verdict, int] = {}
    rejected: dict[str, int] = {}
    accepted = expired = pending = never_read = 0
    for state, outcome, verdict, reason, read, count in shapes:
        if state == ACCEPTED:
            accepted += count
        elif state != "settled":
            pending += count
            never_read += 0 if read else count
        elif outcome == "captured":
            captured[Verdict(verdict)] = captured.get(Verdict(verdict), 0) + count
        elif outcome == "rejected":
            rejected[reason] = rejected.get(reason, 0) + count
        elif outcome == "expired":
            expired += count
    return Books(
        accepted=accepted,
        captured=captured,
        rejected=rejected,
        expired=expired,
        pending=pending,
        never_read=never_read,
        next_reading_at=next_reading_at,
    )


def _find_next_readings(tx: Transaction, shapes: Mapping[str, Sequence[Sequence[Any]]]) -> dict[str, float]:
    """Find for each workspace when the next reading of a pair is due that was captured before."""
    states = {name: {state for state, *_, read, _ in each if read} for name, each in shapes.items()}
    now = dict.fromkeys((name for name, each in states.items() if each & {"due", "leased"}), tx.now)
    later = [name for name, each in states.items() if name not in now and each & {"waiting", DEFERRED_STATE}]
    rows = decode_rows(tx.execute(_select_next_readings(tx.dialect), encode_values(later)))
    return now | {workspace: float(due_at) for workspace, due_at in rows}


@cache
def _select_next_readings(dialect: Dialect) -> Select[str]:
    named = values_as_table(dialect, pairs.c.workspace)
    read = and_(pairs.c.workspace == named.c.workspace, WAITING, pairs.c.captures > literal_column("0"))
    first = select(pairs.c.due_at).where(read).order_by(pairs.c.due_at).limit(1).correlate(named)
    each = select(named.c.workspace, first.scalar_subquery().label("due_at")).subquery()
    return select_as_json(dialect, (each.c.workspace, each.c.due_at), each.c.due_at.is_not(None))


def count_pending(tx: Transaction) -> dict[str, int]:
    """Return the number of open pairs of each workspace that has some."""
    return _count_by_workspace(tx, OPEN)


def has_open_pairs(tx: Transaction, workspace: str) -> bool:
    """Return whether a workspace has open pairs."""
    return tx.execute(_OPEN_OF_WORKSPACE, {"of_workspace": workspace}).first() is not None


def list_unfinished_workspaces(tx: Transaction) -> list[str]:
    """List the workspaces that have open pairs, or expired ones, which a wrong clock may have ended."""
    return list(tx.execute(_UNFINISHED).scalars())


def count_expired(tx: Transaction) -> dict[str, int]:
    """Return the number of expired pairs of each workspace that has some."""
    return _count_by_workspace(tx, pair_counts.c.outcome == "expired")


def _count_by_workspace(tx: Transaction, which: ColumnElement[bool]) -> dict[str, int]:
    by_workspace = select(pair_counts.c.workspace, _NUMBER).where(which).group_by(pair_counts.c.workspace)
    return {row[0]: row[1] for row in tx.execute(by_workspace.having(_NUMBER > 0))}


def count_seemingly_expired(tx: Transaction) -> int:
    """Count the open pairs that have expired according to an unconfirmed time."""
    gone = and_(UNSETTLED, pairs.c.expires_at <= tx.now)
    return int(tx.execute(select(func.count()).select_from(pairs).where(gone)).scalar_one())


def count_planned(tx: Transaction, *, leased: bool) -> int:
    """Count the pairs that wait for a planned reading, and with ``leased`` those that a process is reading."""
    open_ = and_(WAITING, pairs.c.deferrals == 0)
    by_plan = and_(or_(open_, LEASED) if leased else open_, pairs.c.reading != ONCE)
    return tx.execute(select(func.count()).select_from(pairs).where(by_plan)).scalar_one()


def count_readings(tx: Transaction) -> dict[str, int]:
    """Return the number of readings by outcome; ``pending`` are the open ones."""
    counts = {outcome: number for outcome, number in tx.execute(_COUNT_OUTCOMES) if number}
    return counts | {"pending": sum(count_pending(tx).values())}


def count_batches(tx: Transaction) -> dict[str, int]:
    """Count batches by state."""
    rows = tx.execute(select(batches.c.state, func.count()).group_by(batches.c.state))
    return {row[0]: row[1] for row in rows}


def count_batches_without_part(tx: Transaction) -> int:
    """Count the finished batches without rows, which have no part."""
    with_part = select(parts.c.batch_id).where(parts.c.batch_id == batches.c.id).exists()
    done = select(func.count()).select_from(batches).where(batches.c.state == "stored", ~with_part)
    return int(tx.execute(done).scalar_one())


def list_deadlines(tx: Transaction) -> "array[float]":
    """List the deadlines of all open pairs, nearest first; an array, since there may be millions."""
    nearest = select(pairs.c.expires_at).where(UNSETTLED).order_by(pairs.c.expires_at)
    rows = tx.execute(nearest.execution_options(yield_per=10_000))
    return array("d", (expires_at - GRACE_SECONDS for (expires_at,) in rows))


def list_halted(tx: Transaction) -> dict[str, tuple[str, float]]:
    """List the halted workspaces with cause and time."""
    return {row.name: (row.halt_reason, row.halted_at) for row in tx.execute(select(workspaces))}


def count_waiting(tx: Transaction) -> dict[str, int]:
    """Count the batches that wait to be stored, by place."""
    batch_ids = func.count(parts.c.batch_id.distinct())
    not_stored = batches.c.state != literal_column("'stored'")  # the database knows an index for this condition only
    sealed = and_(not_stored, batches.c.state == "sealed", parts.c.stored_at.is_(None))
    unstored = select(parts.c.destination, batch_ids).where(sealed)
    rows = tx.execute(unstored.join(batches, batches.c.id == parts.c.batch_id).group_by(parts.c.destination))
    places = list_places(tx)
    return {places.get(destination, "an unknown place"): count for destination, count in rows}


def find(tx: Transaction, wanted: Sequence[Pair]) -> dict[Pair, str]:
    """Return for each pair whether it is pending, captured, rejected or expired; unknown ones are left out.

    A pair that has expired counts as expired, even if no process has recorded that yet.
    """
    columns = IDENTITY
    values = encode_rows([(each.workspace, each.campaign_id, each.send_id) for each in wanted])
    wanted_rows = rows_as_table(tx.dialect, columns)
    same = and_(*(column == wanted_rows.c[column.name] for column in columns))
    standing = case((pairs.c.state == "settled", pairs.c.outcome), (OVERDUE, "expired"), else_="pending")
    rows = tx.execute(select(*columns, standing).select_from(wanted_rows.join(pairs, same)), values)
    return {Pair(*identity): word for *identity, word in rows}
