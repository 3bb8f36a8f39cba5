"""Seals batches: stores their outcomes, their parts and the next readings of their pairs in one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Executable,
    Float,
    FromClause,
    Insert,
    Integer,
    Select,
    String,
    Update,
    and_,
    case,
    func,
    insert,
    null,
    select,
    update,
)

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import NOW, SINCE, released_state
from harvester.ledger.json_rows import encode_rows, encode_values, rows_as_table, values_as_table
from harvester.ledger.locks import lock_pairs
from harvester.ledger.plans import get_plans
from harvester.ledger.schema import batches, outcomes, pairs, parts
from harvester.model import Batch, Captured, Deferred, Part, Reading, ReadingOutcome, Rejected
from harvester.schedule import FINAL

_NEXT: Column[Any] = Column("next", String)
"""The name of the reading that follows one; null after the last."""

_SINCE_AT_CLAIM: Column[Any] = Column("since_at_claim", Float)
"""``Reading.since``, which may have been corrected in the ledger while the reading was leased."""

_MORE: Column[Any] = Column("more", Integer)
"""By how much the number of deferrals grows."""

_OUTCOME_COLUMNS = (
    outcomes.c.pair_id,
    outcomes.c.reading,
    outcomes.c.outcome,
    outcomes.c.verdict,
    outcomes.c.reason,
    outcomes.c.detail,
    outcomes.c.batch_id,
)

ClosedBatch = tuple[Batch, Sequence[ReadingOutcome], Sequence[Part]]
"""A batch with its readings and their outcomes, and its parts."""


class LeaseOver(Exception):  # noqa: N818 - it ends a transaction, and is no error of a caller
    """A reading is not leased to its epoch any more, or the batch was sealed before."""


@dataclass(frozen=True, slots=True)
class _OutcomeRows:
    """Outcomes as rows: readings that ended, and readings that are released."""

    ended: list[tuple[object, ...]] = field(default_factory=list)
    released: list[tuple[object, ...]] = field(default_factory=list)


def seal(tx: Transaction, closed: Sequence[ClosedBatch], *, epoch: int, delay: Callable[[int], float]) -> None:
    """Record the outcomes and parts of batches together. Raises ``LeaseOver``, which rolls back everything.

    The next reading of each captured pair is planned. ``delay`` returns the seconds until a reading is due again that
    was deferred so many times before. Its next request covers the same days only if the time is confirmed.
    """
    for batch, _, parts_of_batch in closed:
        state = "sealed" if parts_of_batch else "stored"
        row = {"id": batch.id, "epoch": epoch, "state": state, "opened_at": batch.opened_at}
        if tx.execute(_insert_batch(tx.dialect), row).first() is None:
            raise LeaseOver
    lock_pairs(tx, [reading.pair_id for _, reading_outcomes, _ in closed for reading, _ in reading_outcomes])
    rows = _build_rows(tx, closed, delay)
    if rows.ended:
        _update_leased(tx, _end(tx.dialect), rows.ended)
        tx.execute(_record_outcomes(tx.dialect), encode_rows(rows.ended))
        if tx.confirmed:
            tx.execute(_restart_retention(tx.dialect), encode_values(each[0] for each in rows.ended))
    if rows.released:
        _update_leased(tx, _release(tx.dialect), rows.released)
    for batch, _, parts_of_batch in closed:
        for part in parts_of_batch:
            tx.execute(insert(parts), _build_part(batch.id, part))


@cache
def _insert_batch(dialect: Dialect) -> Executable:
    statement: Executable = dialect.insert(batches).on_conflict_do_nothing().returning(batches.c.id)
    return statement


def _count_deferrals(tx: Transaction, pair_ids: Sequence[int]) -> dict[int, int]:
    """Count how often each of these pairs was deferred before."""
    if not pair_ids:
        return {}
    return {row.id: row.deferrals for row in tx.execute(_select_deferrals(tx.dialect), encode_values(pair_ids))}


@cache
def _select_deferrals(dialect: Dialect) -> Select[int, int]:
    named = values_as_table(dialect, pairs.c.id)
    return select(pairs.c.id, pairs.c.deferrals).where(pairs.c.id.in_(select(named.c.id)))


def _build_rows(tx: Transaction, closed: Sequence[ClosedBatch], delay: Callable[[int], float]) -> _OutcomeRows:
    every = [(batch.id, *each) for batch, reading_outcomes, _ in closed for each in reading_outcomes]
    plans = get_plans(tx, sorted({reading.pair.workspace for _, reading, _ in every}))
    deferred = [reading.pair_id for _, reading, outcome in every if isinstance(outcome, Deferred)]
    delays = {pair_id: delay(count) for pair_id, count in _count_deferrals(tx, deferred).items()}
    rows = _OutcomeRows()
    for of_batch, reading, outcome in every:
        match outcome:
            case Captured():
                plan = plans[reading.pair.workspace]
                # The claim is not before ``ending_at``; a reading due in between would have replaced this one.
                following = plan.after(reading.name, reading.since, reading.ending_at)
                planned = (following.name, following.due_at) if following else (None, None)
                verdict = outcome.verdict.value
                rows.ended.append(_build_ended(reading, "captured", verdict, None, None, of_batch, *planned))
            case Rejected():
                reason, detail = outcome.reason, outcome.detail
                rows.ended.append(_build_ended(reading, "rejected", None, reason, detail, of_batch, None, None))
            case Deferred():
                due_at = tx.now + delays.get(reading.pair_id, 0.0)
                rows.released.append(_build_released(reading, due_at=due_at, deferrals=1, keep_request=tx.confirmed))
            case _:
                rows.released.append(_build_released(reading, due_at=None, deferrals=0, keep_request=False))
    return rows


def _build_ended(reading: Reading, *outcome: object) -> tuple[object, ...]:
    return (reading.pair_id, reading.name, *outcome, reading.round, reading.since, reading.epoch)


def _build_part(batch_id: str, part: Part) -> dict[str, object]:
    return {
        "batch_id": batch_id,
        "dataset": part.dataset,
        "destination": part.destination,
        "name": part.name,
        "sha256": part.sha256,
        "size_bytes": part.size_bytes,
        "row_count": part.row_count,
        "data": part.data,
    }


def _update_leased(tx: Transaction, statement: Update, rows: Sequence[Sequence[object]]) -> None:
    """Change pairs whose readings are still leased to their epochs. Raises ``LeaseOver`` unless all of them are."""
    if tx.execute(statement, encode_rows(rows)).rowcount != len(rows):
        raise LeaseOver


def _ended_as_table(dialect: Dialect) -> FromClause:
    """Return the readings that ended as a table."""
    p = pairs.c
    return rows_as_table(dialect, (*_OUTCOME_COLUMNS, _NEXT, p.due_at, p.round, _SINCE_AT_CLAIM, p.epoch))


@cache
def _end(dialect: Dialect) -> Update:
    """End readings: after its last reading a pair is settled, others wait for their next one.

    A pair that began another round meanwhile waits for the new round's first reading. If the start of its time was
    corrected meanwhile, as after a wrong clock, its next reading moves with it.
    """
    p, given = pairs.c, _ended_as_table(dialect)
    following, same_round = given.c["next"].is_not(None), p.round == given.c.round
    continues, ends = and_(same_round, following), and_(same_round, ~following)
    due_at = given.c.due_at + (SINCE - given.c.since_at_claim)
    values: dict[Any, Any] = {
        p.state: case((ends, "settled"), else_="waiting"),
        p.epoch: None,
        p.ending_at: None,
        p.deferrals: 0,
        p.reading: case((continues, given.c["next"]), else_=p.reading),
        p.due_at: case((continues, due_at), else_=p.due_at),
        p.low_priority: case((and_(continues, given.c["next"] != FINAL), 1), else_=0),
        p.captures: p.captures + case((and_(same_round, given.c.outcome == "captured"), 1), else_=0),
        p.outcome: case((ends, given.c.outcome), else_=null()),
        p.verdict: case((same_round, given.c.verdict), else_=null()),
        p.reason: case((ends, given.c.reason), else_=null()),
    }
    return update(pairs).where(p.id == given.c.pair_id, p.epoch == given.c.epoch).values(values)


@cache
def _record_outcomes(dialect: Dialect) -> Insert:
    """Record the outcomes of readings that ended."""
    given, o = _ended_as_table(dialect), outcomes.c
    recorded = select(*(given.c[each.name] for each in _OUTCOME_COLUMNS), NOW)
    return insert(outcomes).from_select([*_OUTCOME_COLUMNS, o.ended_at], recorded)


@cache
def _restart_retention(dialect: Dialect) -> Update:
    """Restart the retention of captured pairs for which it seems over and whose sends have no time.

    A clock that was behind recorded when they were first seen. Enqueued again in time, they are not new sends.
    """
    p = pairs.c
    given = values_as_table(dialect, p.id)
    captured = and_(p.state == "settled", p.outcome == "captured", p.sent_at.is_(None), p.expires_at < NOW)
    values: dict[Any, Any] = {p.expires_at: p.expires_at - p.first_seen_at + NOW, p.first_seen_at: NOW}
    return update(pairs).where(p.id == given.c.id, captured).values(values)


def _build_released(
    reading: Reading, *, due_at: float | None, deferrals: int, keep_request: bool
) -> tuple[object, ...]:
    """Return the row of a released reading; with ``keep_request``, its next request covers the same days."""
    request = (reading.name, reading.ending_at) if keep_request else (None, None)
    return (reading.pair_id, reading.round, reading.epoch, due_at, deferrals, *request)


@cache
def _release(dialect: Dialect) -> Update:
    """Release readings; a pair that began another round waits for the new round's first reading."""
    p = pairs.c
    given = rows_as_table(dialect, (p.id, p.round, p.epoch, p.due_at, _MORE, p.reading, p.ending_at))
    same = p.round == given.c.round
    due_at: ColumnElement[float] = case((same, func.coalesce(given.c.due_at, p.due_at)), else_=p.due_at)
    values: dict[Any, Any] = {
        p.state: released_state(due_at, deferred=given.c.more > 0),
        p.due_at: due_at,
        p.epoch: None,
        p.deferrals: case((same, p.deferrals + given.c.more), else_=0),
        p.reading: case((same, func.coalesce(given.c.reading, p.reading)), else_=p.reading),
        p.ending_at: case((same, given.c.ending_at), else_=null()),
    }
    return update(pairs).where(p.id == given.c.id, p.epoch == given.c.epoch).values(values)
