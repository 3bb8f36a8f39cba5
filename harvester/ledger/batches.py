"""The batch protocol in the ledger: claim, seal, stored.

Each verb is a function over one open transaction. Nothing here commits, waits, reads a clock or draws a random number:
time, identity and jitter are arguments. A batch is fenced by its token: a verb that finds it changed does nothing and
says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    String,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    update,
)  # fmt: skip

from harvester.clock import LARGE_DIFFERENCE_SECONDS
from harvester.ledger.books import TRIED
from harvester.ledger.json_rows import handed_back, handed_over
from harvester.ledger.plans import plan_of, resting
from harvester.ledger.probes import find_probe
from harvester.ledger.schema import batches, outcomes, pairs, parts
from harvester.model import (  # fmt: skip
    DAY_SECONDS,
    GRACE_SECONDS,
    Batch,
    Captured,
    Deferred,
    Pair,
    Part,
    Probe,
    Reading,
    Rejected,
    Settlement,
)
from harvester.schedule import FINAL, ONCE, ReadingPlan

_SINCE = func.coalesce(pairs.c.sent_at, pairs.c.first_seen_at)
"""When a pair's time began: see ``Reading.since``."""

_DUE, _WAITING = pairs.c.state == "due", pairs.c.state == "waiting"

_NEXT: Column[Any] = Column("next", String)
"""The name of the reading that follows one; null after the last."""

_SINCE_AT_CLAIM: Column[Any] = Column("since_at_claim", Float)
"""``Reading.since``, which may have been corrected in the ledger while the reading was leased."""


def wake(connection: Connection, workspace: str, *, now: float, confirmed: bool = True) -> int:
    """Make readings due whose time has come, and end those whose pair has expired. Gives how many expired.

    Where the time is not ``confirmed`` it does nothing: what a wrong clock calls due, or gone, may not be. A pair that
    came in time gets one try even after that: nobody knows to the hour when its data goes.
    """
    if not confirmed:
        return 0
    mine = pairs.c.workspace == workspace
    connection.execute(update(pairs).where(mine, pairs.c.state == "waiting", pairs.c.due_at <= now).values(state="due"))
    due = and_(mine, pairs.c.state == "due", pairs.c.yields.in_((0, 1)))
    plan = plan_of(connection, workspace)
    if plan.readings:  # an overdue reading that is the final one by now gives way no longer
        final_since = plan.expires_at(now - plan.readings[-1][1])
        connection.execute(
            update(pairs).where(due, pairs.c.yields == 1, pairs.c.expires_at <= final_since).values(yields=0)
        )
    open_ = and_(mine, pairs.c.state != literal_column("'settled'"), pairs.c.state.in_(("due", "paused")))
    gone = and_(open_, pairs.c.expires_at <= now, TRIED | (pairs.c.state == "paused"))
    columns = ("pair_id", "reading", "outcome", "ended_at")
    ending = select(pairs.c.id, pairs.c.reading, literal("expired"), literal(now)).where(gone)
    expired = connection.execute(insert(outcomes).from_select(columns, ending)).rowcount
    connection.execute(update(pairs).where(gone).values(state="settled", outcome="expired"))
    return expired


def claim(
    connection: Connection, workspace: str, *, batch_id: str, token: str, owner: str,
    limit: int, now: float, lease_until: float,
    probe: Probe | None = None, confirmed: bool = True,
) -> Batch | None:  # fmt: skip
    """Lease due readings as one batch: those that yield last, the nearest deadline first. None when nothing is due.

    ``probe`` narrows the claim to the one pair it describes. A reading that was overdue for long is claimed as the
    latest one that is due: one settles them all. One that was asked and deferred asks the same again, for a day; then
    a newer question is worth more. Where the time is not ``confirmed`` nothing stays that rests on it: neither what
    fell due, nor what is asked; and pairs that seem to have expired are left alone.
    """
    wake(connection, workspace, now=now, confirmed=confirmed)
    which = [pairs.c.workspace == workspace]
    leasing: dict[Any, Any] = {pairs.c.state: "leased", pairs.c.batch_id: batch_id}
    name = _latest_due(plan_of(connection, workspace), now)
    recent = and_(pairs.c.ending_at > now - DAY_SECONDS, pairs.c.ending_at <= now + LARGE_DIFFERENCE_SECONDS)
    ending_at = case((and_(pairs.c.reading == name, recent), pairs.c.ending_at), else_=now)
    asked: tuple[ColumnElement[Any], ...] = (name, ending_at)
    ready = [_DUE]
    if confirmed:
        leasing |= {pairs.c.reading: name, pairs.c.ending_at: ending_at}
        asked = (pairs.c.reading, pairs.c.ending_at)
    else:
        which.append(or_(pairs.c.expires_at > now, ~TRIED))
        ready.append(and_(_WAITING, pairs.c.due_at <= now))
    if probe is not None:
        ready = [pairs.c.id == find_probe(connection, workspace, probe)]
    for each in ready:
        if _lease(connection, leasing, each, *which, limit=limit):
            break
    columns = (
        pairs.c.id, pairs.c.campaign_id, pairs.c.send_id, *asked, pairs.c.expires_at, _SINCE, pairs.c.round,
    )  # fmt: skip
    leased = handed_back(connection, columns, and_(pairs.c.batch_id == batch_id, pairs.c.state == "leased"))
    if not leased:
        return None
    connection.execute(
        insert(batches).values(
            id=batch_id, workspace=workspace, owner=owner, token=token, state="open", claimed_at=now,
            lease_until=lease_until,
        )
    )  # fmt: skip
    readings = [
        Reading(
            pair_id, Pair(workspace, campaign_id, send_id), name, float(ending_at), float(expires_at) - GRACE_SECONDS,
            float(since), round_,
        )
        for pair_id, campaign_id, send_id, name, ending_at, expires_at, since, round_ in leased
    ]  # fmt: skip
    readings.sort(key=lambda each: (each.deadline, each.pair_id))
    return Batch(id=batch_id, token=token, workspace=workspace, claimed_at=now, readings=tuple(readings))


def _lease(connection: Connection, values: dict[Any, Any], *which: ColumnElement[bool], limit: int) -> int:
    """Lease the first of those that are ready; gives how many."""
    nearest = (
        select(pairs.c.id).where(*which).order_by(pairs.c.yields, pairs.c.expires_at, pairs.c.id).limit(limit)
        .with_for_update(skip_locked=True)
    )  # fmt: skip
    return connection.execute(update(pairs).where(pairs.c.id.in_(nearest.scalar_subquery())).values(values)).rowcount


def _latest_due(plan: ReadingPlan, now: float) -> ColumnElement[str]:
    """Name the latest reading of a plan that has fallen due by now: never an earlier one than that which was planned.

    A clock that was set back would ask anew for a reading that was captured.
    """
    passed = [
        (or_(pairs.c.reading == name, _SINCE + age <= now), literal(name)) for name, age in reversed(plan.readings)
    ]
    return case((pairs.c.reading == ONCE, pairs.c.reading), *passed, else_=pairs.c.reading)


def seal(
    connection: Connection, batch: Batch, settlements: Iterable[Settlement], sealed: Sequence[Part],
    *, destination: str, now: float, deferral_delays: Mapping[int, float], confirmed: bool = True,
) -> bool:  # fmt: skip
    """Record outcomes and parts together, if the batch is still ours. False, and nothing recorded, if it is not.

    The next reading of each captured pair is planned. ``deferral_delays`` gives for a deferred pair's id the seconds
    until it is due again. It is asked the same again only where the time is ``confirmed`` by which it was asked.
    """
    state = "sealed" if sealed else "stored"
    mine = and_(batches.c.id == batch.id, batches.c.token == batch.token, batches.c.state == "open")
    if connection.execute(update(batches).where(mine).values(state=state)).rowcount != 1:
        return False
    plan = plan_of(connection, batch.workspace)
    ended: list[tuple[object, ...]] = []
    what: tuple[str, str | None, str | None, str | None]
    back: list[dict[str, object]] = []
    for settlement in settlements:
        reading, outcome = settlement.reading, settlement.outcome
        match outcome:
            case Captured():
                following = plan.after(reading.name, reading.since, batch.claimed_at)
                to_come = (following.name, following.due_at) if following else (None, None)
                what = ("captured", outcome.verdict.value, None, None)
                ended.append((reading.pair_id, reading.name, *what, *to_come, reading.round, reading.since))
            case Rejected():
                what = ("rejected", None, outcome.reason, outcome.detail)
                ended.append((reading.pair_id, reading.name, *what, None, None, reading.round, reading.since))
            case Deferred():
                due_at = now + deferral_delays[reading.pair_id]
                back.append(_back(reading, due_at=due_at, more=1, again=confirmed))
            case _:
                back.append(_back(reading, due_at=None, more=0, again=False))
    if ended:
        _end(connection, ended, batch.id, now=now)
        if confirmed:
            _begin_windows_again(connection, [each[0] for each in ended], now=now)
    if back:
        _give_back(connection, back, now=now)
    for part in sealed:
        connection.execute(
            insert(parts).values(
                batch_id=batch.id, dataset=part.dataset, destination=destination, name=part.name, sha256=part.sha256,
                size_bytes=part.size_bytes, row_count=part.row_count, data=part.data,
            )
        )  # fmt: skip
    return True


def _end(connection: Connection, ended: Sequence[Sequence[object]], batch_id: str, *, now: float) -> None:
    """Record outcomes; a pair whose last reading it was is settled, the others wait for their next one.

    A pair that began another round meanwhile waits for the first reading of that. Where the beginning of its time was
    corrected meanwhile, as after a wrong clock, its next reading moves with it.
    """
    o, p = outcomes.c, pairs.c
    columns = (o.pair_id, o.reading, o.outcome, o.verdict, o.reason, o.detail)
    given = handed_over(connection, (*columns, _NEXT, p.due_at, p.round, _SINCE_AT_CLAIM), ended)
    told = select(*(given.c[each.name] for each in columns), literal(now), literal(batch_id))
    connection.execute(insert(outcomes).from_select([*columns, o.ended_at, o.batch_id], told))
    following, same_round = given.c["next"].is_not(None), p.round == given.c.round
    goes_on, is_over = and_(same_round, following), and_(same_round, ~following)
    due_at = given.c.due_at + (_SINCE - given.c.since_at_claim)
    values: dict[Any, Any] = {
        p.state: case((is_over, "settled"), else_="waiting"), p.batch_id: None, p.ending_at: None, p.deferrals: 0,
        p.reading: case((goes_on, given.c["next"]), else_=p.reading),
        p.due_at: case((goes_on, due_at), else_=p.due_at),
        p.yields: case((and_(goes_on, given.c["next"] != FINAL), 1), else_=0),
        p.captures: p.captures + case((and_(same_round, given.c.outcome == "captured"), 1), else_=0),
        p.outcome: case((is_over, given.c.outcome), else_=null()),
        p.verdict: case((same_round, given.c.verdict), else_=null()),
        p.reason: case((is_over, given.c.reason), else_=null()),
    }  # fmt: skip
    connection.execute(update(pairs).where(p.id == given.c.pair_id).values(values))


def _begin_windows_again(connection: Connection, ended: Sequence[object], *, now: float) -> None:
    """Begin the windows of captured pairs now that seem to be closed, and whose sends have no time.

    They were first seen by a clock that was behind. Named again within their windows, they are no new sends.
    """
    p = pairs.c
    given = handed_over(connection, (p.id,), [(each,) for each in ended])
    captured = and_(p.state == "settled", p.outcome == "captured", p.sent_at.is_(None), p.expires_at < now)
    values: dict[Any, Any] = {p.expires_at: p.expires_at - p.first_seen_at + now, p.first_seen_at: now}
    connection.execute(update(pairs).where(p.id == given.c.id, captured).values(values))


def _back(reading: Reading, *, due_at: float | None, more: int, again: bool) -> dict[str, object]:
    """Say how a reading goes back: to be asked the same ``again``, or pinned to no question."""
    return {
        "back_id": reading.pair_id, "back_round": reading.round, "back_due": due_at, "back_more": more,
        "back_name": reading.name if again else None, "back_ending": reading.ending_at if again else None,
    }  # fmt: skip


def _give_back(connection: Connection, back: list[dict[str, object]], *, now: float) -> None:
    """Let readings wait again; a pair that began another round meanwhile waits for the first reading of that."""
    p, same = pairs.c, pairs.c.round == bindparam("back_round")
    due_at: ColumnElement[float] = case((same, func.coalesce(bindparam("back_due"), p.due_at)), else_=p.due_at)
    returned: dict[Any, Any] = {
        p.state: resting(due_at, now, put_off=bindparam("back_more") > 0), p.due_at: due_at, p.batch_id: None,
        p.deferrals: case((same, p.deferrals + bindparam("back_more")), else_=0),
        p.reading: case((same, func.coalesce(bindparam("back_name", type_=String), p.reading)), else_=p.reading),
        p.ending_at: case((same, bindparam("back_ending", type_=Float)), else_=null()),
    }  # fmt: skip
    connection.execute(update(pairs).where(p.id == bindparam("back_id")).values(returned), back)


def deferrals_of(connection: Connection, pair_ids: Sequence[int]) -> dict[int, int]:
    """Tell how often each of these pairs was deferred before."""
    rows = connection.execute(select(pairs.c.id, pairs.c.deferrals).where(pairs.c.id.in_(pair_ids)))
    return {row.id: row.deferrals for row in rows}


def stored(connection: Connection, batch_id: str, *, dataset: str, now: float) -> None:
    """Note that a batch's part stands in its dataset, and drop its bytes. Twice is once."""
    mine = and_(parts.c.batch_id == batch_id, parts.c.stored_at.is_(None))
    order = select(func.coalesce(func.max(parts.c.stored_order), 0) + 1).scalar_subquery()
    this = update(parts).where(mine, parts.c.dataset == dataset)
    connection.execute(this.values(data=None, stored_at=now, stored_order=order))
    more = select(parts.c.batch_id).where(mine).exists()
    connection.execute(update(batches).where(batches.c.id == batch_id, ~more).values(state="stored"))


def conflicted(connection: Connection, batch_id: str) -> None:
    """Set a batch aside whose part's name is taken by other bytes; its own bytes are kept."""
    connection.execute(update(batches).where(batches.c.id == batch_id).values(state="conflict"))


def sealed_parts(connection: Connection, batch_id: str) -> list[Part]:
    """Give the parts of a sealed batch with their bytes, those that are not stored by now."""
    waiting = select(parts).where(parts.c.batch_id == batch_id, parts.c.data.is_not(None)).order_by(parts.c.dataset)
    return [
        Part(row.dataset, row.name, row.sha256, row.size_bytes, row.row_count, row.data)
        for row in connection.execute(waiting)
    ]
