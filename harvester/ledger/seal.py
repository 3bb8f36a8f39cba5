"""Seals a batch: stores its outcomes, its parts and the next readings of its pairs in one transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    String,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    null,
    select,
    update,
)  # fmt: skip

from harvester.ledger.database import Transaction
from harvester.ledger.filters import SINCE, released_state
from harvester.ledger.json_rows import rows_as_table
from harvester.ledger.plans import get_plan
from harvester.ledger.schema import batches, outcomes, pairs, parts
from harvester.model import Batch, Captured, Deferred, Part, Reading, Rejected, Settlement
from harvester.schedule import FINAL, ReadingPlan

_NEXT: Column[Any] = Column("next", String)
"""The name of the reading that follows one; null after the last."""

_SINCE_AT_CLAIM: Column[Any] = Column("since_at_claim", Float)
"""``Reading.since``, which may have been corrected in the ledger while the reading was leased."""


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The settlements of a batch as rows: readings that ended, and readings that are released."""

    ended: list[tuple[object, ...]] = field(default_factory=list)
    back: list[dict[str, object]] = field(default_factory=list)


def seal(
    tx: Transaction, batch: Batch, settlements: Sequence[Settlement], sealed: Sequence[Part], *, destination: str,
    delay: Callable[[int], float],
) -> bool:  # fmt: skip
    """Record outcomes and parts together, if the batch's token is still valid. False, and nothing recorded, if not.

    The next reading of each captured pair is planned. ``delay`` returns the seconds until a reading is due again that
    was deferred so many times before. It is requested with the same question only where the time is confirmed.
    """
    state = "sealed" if sealed else "stored"
    mine = and_(batches.c.id == batch.id, batches.c.token == batch.token, batches.c.state == "open")
    if tx.execute(update(batches).where(mine).values(state=state)).rowcount != 1:
        return False
    deferred = [each.reading.pair_id for each in settlements if isinstance(each.outcome, Deferred)]
    delays = {pair_id: delay(count) for pair_id, count in _count_deferrals(tx, deferred).items()}
    rows = _sort(tx, batch, settlements, get_plan(tx, batch.workspace), delays)
    if rows.ended:
        _end(tx, rows.ended, batch.id)
        if tx.confirmed:
            _restart_windows(tx, [each[0] for each in rows.ended])
    if rows.back:
        _give_back(tx, rows.back)
    for part in sealed:
        _insert_part(tx, batch.id, part, destination)
    return True


def _count_deferrals(tx: Transaction, pair_ids: Sequence[int]) -> dict[int, int]:
    """Count how often each of these pairs was deferred before."""
    if not pair_ids:
        return {}
    rows = tx.execute(select(pairs.c.id, pairs.c.deferrals).where(pairs.c.id.in_(pair_ids)))
    return {row.id: row.deferrals for row in rows}


def _sort(
    tx: Transaction, batch: Batch, settlements: Iterable[Settlement], plan: ReadingPlan, delays: Mapping[int, float]
) -> _Sorted:
    rows = _Sorted()
    for reading, outcome in settlements:
        match outcome:
            case Captured():
                following = plan.after(reading.name, reading.since, batch.claimed_at)
                planned = (following.name, following.due_at) if following else (None, None)
                rows.ended.append(_ended(reading, "captured", outcome.verdict.value, None, None, *planned))
            case Rejected():
                rows.ended.append(_ended(reading, "rejected", None, outcome.reason, outcome.detail, None, None))
            case Deferred():
                due_at = tx.now + delays[reading.pair_id]
                rows.back.append(_back(reading, due_at=due_at, deferrals=1, same_question=tx.confirmed))
            case _:
                rows.back.append(_back(reading, due_at=None, deferrals=0, same_question=False))
    return rows


def _ended(reading: Reading, *outcome: object) -> tuple[object, ...]:
    return (reading.pair_id, reading.name, *outcome, reading.round, reading.since)


def _insert_part(tx: Transaction, batch_id: str, part: Part, destination: str) -> None:
    tx.execute(
        insert(parts).values(
            batch_id=batch_id, dataset=part.dataset, destination=destination, name=part.name, sha256=part.sha256,
            size_bytes=part.size_bytes, row_count=part.row_count, data=part.data,
        )
    )  # fmt: skip


def _end(tx: Transaction, ended: Sequence[Sequence[object]], batch_id: str) -> None:
    """Record outcomes; after its last reading a pair is settled, others wait for their next one.

    A pair that began another round meanwhile waits for the new round's first reading. If the start of its time was
    corrected meanwhile, as after a wrong clock, its next reading moves with it.
    """
    o, p = outcomes.c, pairs.c
    columns = (o.pair_id, o.reading, o.outcome, o.verdict, o.reason, o.detail)
    given = rows_as_table(tx, (*columns, _NEXT, p.due_at, p.round, _SINCE_AT_CLAIM), ended)
    recorded = select(*(given.c[each.name] for each in columns), literal(tx.now), literal(batch_id))
    tx.execute(insert(outcomes).from_select([*columns, o.ended_at, o.batch_id], recorded))
    following, same_round = given.c["next"].is_not(None), p.round == given.c.round
    continues, ends = and_(same_round, following), and_(same_round, ~following)
    due_at = given.c.due_at + (SINCE - given.c.since_at_claim)
    values: dict[Any, Any] = {
        p.state: case((ends, "settled"), else_="waiting"), p.batch_id: None, p.ending_at: None, p.deferrals: 0,
        p.reading: case((continues, given.c["next"]), else_=p.reading),
        p.due_at: case((continues, due_at), else_=p.due_at),
        p.low_priority: case((and_(continues, given.c["next"] != FINAL), 1), else_=0),
        p.captures: p.captures + case((and_(same_round, given.c.outcome == "captured"), 1), else_=0),
        p.outcome: case((ends, given.c.outcome), else_=null()),
        p.verdict: case((same_round, given.c.verdict), else_=null()),
        p.reason: case((ends, given.c.reason), else_=null()),
    }  # fmt: skip
    tx.execute(update(pairs).where(p.id == given.c.pair_id).values(values))


def _restart_windows(tx: Transaction, ended: Sequence[object]) -> None:
    """Restart the windows of captured pairs that seem closed and whose sends have no time.

    They were first seen by a clock that was behind. Named again within their windows, they are no new sends.
    """
    p = pairs.c
    given = rows_as_table(tx, (p.id,), [(each,) for each in ended])
    captured = and_(p.state == "settled", p.outcome == "captured", p.sent_at.is_(None), p.expires_at < tx.now)
    values: dict[Any, Any] = {p.expires_at: p.expires_at - p.first_seen_at + tx.now, p.first_seen_at: tx.now}
    tx.execute(update(pairs).where(p.id == given.c.id, captured).values(values))


def _back(reading: Reading, *, due_at: float | None, deferrals: int, same_question: bool) -> dict[str, object]:
    """Return the row of a released reading: with the ``same_question``, or with none."""
    return {
        "back_id": reading.pair_id, "back_round": reading.round, "back_due": due_at, "back_more": deferrals,
        "back_name": reading.name if same_question else None,
        "back_ending": reading.ending_at if same_question else None,
    }  # fmt: skip


def _give_back(tx: Transaction, back: list[dict[str, object]]) -> None:
    """Release readings; a pair that began another round waits for the new round's first reading."""
    p, same = pairs.c, pairs.c.round == bindparam("back_round")
    due_at: ColumnElement[float] = case((same, func.coalesce(bindparam("back_due"), p.due_at)), else_=p.due_at)
    returned: dict[Any, Any] = {
        p.state: released_state(due_at, tx.now, deferred=bindparam("back_more") > 0),
        p.due_at: due_at, p.batch_id: None,
        p.deferrals: case((same, p.deferrals + bindparam("back_more")), else_=0),
        p.reading: case((same, func.coalesce(bindparam("back_name", type_=String), p.reading)), else_=p.reading),
        p.ending_at: case((same, bindparam("back_ending", type_=Float)), else_=null()),
    }  # fmt: skip
    tx.execute(update(pairs).where(p.id == bindparam("back_id")).values(returned), back)
