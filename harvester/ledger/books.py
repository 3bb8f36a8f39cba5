"""The balance of a ledger, and its counts of readings, batches and parts. Every function only reads."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, case, func, literal_column, select

from harvester.ledger.database import Transaction
from harvester.ledger.enqueue import IDENTITY
from harvester.ledger.filters import UNSETTLED, WAITING
from harvester.ledger.json_rows import encode_rows, rows_as_table
from harvester.ledger.schema import batches, outcomes, pairs, parts, workspaces
from harvester.model import GRACE_SECONDS, Books, Pair, Verdict
from harvester.schedule import ONCE

_SHAPE = (pairs.c.state, pairs.c.outcome, pairs.c.verdict, pairs.c.reason, pairs.c.captures > literal_column("0"))
_FIGURES = (func.count(), func.min(pairs.c.due_at))


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A stored part. ``order`` only grows, so loaders use it as a bookmark."""

    order: int
    dataset: str
    name: str
    sha256: str
    size_bytes: int
    row_count: int
    stored_at: float


def get_books(tx: Transaction) -> Books:
    """Count the pairs by state and outcome."""
    accepted = tx.execute(select(func.count()).select_from(pairs)).scalar_one()
    return _balance(accepted, tx.execute(select(*_SHAPE, *_FIGURES).group_by(*_SHAPE)))


def get_books_by_workspace(tx: Transaction) -> dict[str, Books]:
    """Count the pairs of each workspace by state and outcome."""
    of = pairs.c.workspace
    accepted = tx.execute(select(of, func.count()).group_by(of)).all()
    shapes: dict[str, list[Sequence[Any]]] = {}
    for row in tx.execute(select(of, *_SHAPE, *_FIGURES).group_by(of, *_SHAPE)):
        shapes.setdefault(row[0], []).append(row[1:])
    return {name: _balance(count, shapes[name]) for name, count in accepted}


def _balance(accepted: int, shapes: Iterable[Sequence[Any]]) -> Books:
    captured: dict[Verdict, int] = {}
    rejected: dict[str, int] = {}
    expired = pending = never_read = 0
    next_readings = []
    for state, outcome, verdict, reason, read, count, due_at in shapes:
        if state != "settled":
            pending += count
            never_read += 0 if read else count
            if read:
                next_readings.append(due_at)
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
        next_reading_at=min(next_readings, default=None),
    )


def count_pending(tx: Transaction) -> dict[str, int]:
    """Count the open pairs of each workspace."""
    still = select(pairs.c.workspace, func.count()).where(UNSETTLED).group_by(pairs.c.workspace)
    return {row[0]: row[1] for row in tx.execute(still)}


def count_seemingly_expired(tx: Transaction) -> int:
    """Count the open pairs that have expired according to an unconfirmed time."""
    gone = and_(UNSETTLED, pairs.c.expires_at <= tx.now)
    return int(tx.execute(select(func.count()).select_from(pairs).where(gone)).scalar_one())


def count_planned(tx: Transaction) -> int:
    """Count the pairs that wait for a planned reading."""
    by_plan = and_(WAITING, pairs.c.reading != ONCE, pairs.c.deferrals == 0)
    return tx.execute(select(func.count()).select_from(pairs).where(by_plan)).scalar_one()


def count_readings(tx: Transaction) -> dict[str, int]:
    """Count readings by outcome; ``pending`` are the open ones."""
    ended = tx.execute(select(outcomes.c.outcome, func.count()).group_by(outcomes.c.outcome))
    counts = {row[0]: row[1] for row in ended}
    still = select(func.count()).select_from(pairs).where(UNSETTLED)
    return counts | {"pending": tx.execute(still).scalar_one()}


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


def list_parts(tx: Transaction, *, after: int, limit: int) -> list[StoredPart]:
    """List stored parts in the order of storing, after a bookmark."""
    columns = (
        parts.c.stored_order,
        parts.c.dataset,
        parts.c.name,
        parts.c.sha256,
        parts.c.size_bytes,
        parts.c.row_count,
        parts.c.stored_at,
    )
    following = select(*columns).where(parts.c.stored_order > after).order_by(parts.c.stored_order).limit(limit)
    return [StoredPart(*row) for row in tx.execute(following)]


def list_newest_parts(tx: Transaction, dataset_id: str, *, limit: int) -> list[str]:
    """Return the names of the parts that were stored last in one place's dataset, the newest first."""
    here = select(parts.c.name).where(parts.c.destination == dataset_id, parts.c.stored_order.is_not(None))
    return list(tx.execute(here.order_by(parts.c.stored_order.desc()).limit(limit)).scalars())


def find(tx: Transaction, wanted: Sequence[Pair]) -> dict[Pair, str]:
    """Return for each pair whether it is pending, captured, rejected or expired; unknown ones are left out.

    A pair that was not requested before it expired counts as expired, even if no capture has recorded that yet.
    """
    columns = IDENTITY
    values = encode_rows([(each.workspace, each.campaign_id, each.send_id) for each in wanted])
    wanted_rows = rows_as_table(tx.dialect, columns)
    same = and_(*(column == wanted_rows.c[column.name] for column in columns))
    overdue = and_(pairs.c.state.in_(("due", "waiting")), pairs.c.expires_at <= tx.now)
    standing = case((pairs.c.state == "settled", pairs.c.outcome), (overdue, "expired"), else_="pending")
    rows = tx.execute(select(*columns, standing).select_from(wanted_rows.join(pairs, same)), values)
    return {Pair(*identity): word for *identity, word in rows}
