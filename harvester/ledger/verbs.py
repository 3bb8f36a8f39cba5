"""What the ledger can do, each verb one function over one open transaction.

Nothing here commits, waits, reads a clock or draws a random number: time, identity and jitter are arguments.
A batch is fenced by its token: a verb that finds the token changed does nothing and says so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
    update,
)  # fmt: skip

from harvester.ledger.schedule import ONCE, expires_at
from harvester.ledger.schema import NEVER, batches, outcomes, pairs, parts, workspaces
from harvester.model import (
    GRACE_SECONDS,
    Batch,
    Books,
    Captured,
    Deferred,
    Enqueued,
    Pair,
    Part,
    Reading,
    Rejected,
    Settlement,
    Verdict,
)  # fmt: skip

_OPEN = ("due", "waiting", "leased")


@dataclass(frozen=True, slots=True)
class EnqueueCount:
    """Of the pairs handed over: how many the ledger did not know, and how many it did."""

    new: int
    known: int


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part that stands in its dataset. ``order`` only grows, so it serves a loader as its bookmark."""

    order: int
    dataset: str
    name: str
    sha256: str
    size_bytes: int
    row_count: int
    stored_at: float


@dataclass(frozen=True, slots=True)
class Unstored:
    """A sealed batch that is not known to be stored, the dataset it was sealed for, and its size there."""

    batch_id: str
    destination: str
    size_bytes: int


def _handed_over(
    connection: Connection, columns: Sequence[Column[Any]], rows: Sequence[Sequence[object]]
) -> FromClause:
    """Give rows as a table that the database unpacks by itself from one JSON text.

    Row by row, the driver would take and drop the interpreter's lock for each, and the event loop would wait for it
    a thousand times a batch.
    """
    unpack = {"sqlite": func.json_each, "postgresql": func.json_array_elements}[connection.dialect.name]
    element = unpack(bindparam("rows", orjson.dumps(rows).decode())).table_valued("value").c.value
    fields = (cast(element.op("->>")(literal_column(str(at))), column.type) for at, column in enumerate(columns))
    return select(*(field.label(column.name) for field, column in zip(fields, columns, strict=True))).subquery()


def enqueue(connection: Connection, arrivals: Sequence[Enqueued], *, now: float, forced: bool = False) -> EnqueueCount:
    """Put pairs into the ledger; a pair that is there already stays one pair.

    A later time of send than the known one moves the deadline of a pair that is still open or has expired.
    ``forced`` pairs do not expire, and expired ones are opened again.
    """
    if not arrivals:
        return EnqueueCount(0, 0)
    columns = (pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id, pairs.c.sent_at, pairs.c.expires_at)
    rows = [
        (
            each.pair.workspace, each.pair.campaign_id, each.pair.send_id, each.sent_at,
            NEVER if forced else expires_at(each.sent_at, now),
        )
        for each in arrivals
    ]  # fmt: skip
    given = _handed_over(connection, columns, rows)
    same_for_all: dict[str, Any] = {
        "first_seen_at": now, "reading": ONCE, "state": "due", "due_at": now, "deferrals": 0
    }  # fmt: skip
    # SQLite takes ON CONFLICT after a SELECT for a join's ON, unless a WHERE stands between them.
    every = select(given, *(literal(value) for value in same_for_all.values())).where(true())
    dialect = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    taking = dialect.insert(pairs).from_select([*(column.name for column in columns), *same_for_all], every)
    before = connection.execute(select(func.coalesce(func.max(pairs.c.id), 0))).scalar_one()
    connection.execute(taking.on_conflict_do_nothing())
    new = connection.execute(select(func.count()).select_from(pairs).where(pairs.c.id > before)).scalar_one()
    if new < len(rows):
        _meet_known(connection, given, now=now, forced=forced)
    return EnqueueCount(new=new, known=len(rows) - new)


def _meet_known(connection: Connection, given: FromClause, *, now: float, forced: bool) -> None:
    """Let what a source knows better reach pairs that the ledger had already."""
    identity = [given.c[key] for key in ("workspace", "campaign_id", "send_id")]
    latest = (func.max(given.c[key]).label(key) for key in ("sent_at", "expires_at"))
    told = select(*identity, *latest).group_by(*identity).subquery()
    known = [pairs.c[column.name] == told.c[column.name] for column in identity]
    moved: dict[Any, Any] = {pairs.c.expires_at: told.c.expires_at}
    if not forced:
        known.append(func.coalesce(pairs.c.sent_at, 0) < told.c.sent_at)
        moved[pairs.c.sent_at] = told.c.sent_at
    reopened = moved | _reopened_values() | {pairs.c.due_at: now}
    connection.execute(update(pairs).where(*known, pairs.c.outcome == "expired").values(reopened))
    connection.execute(update(pairs).where(*known, pairs.c.state != "settled").values(moved))


def _reopened_values() -> dict[Any, Any]:
    return {
        pairs.c.state: "due", pairs.c.deferrals: 0, pairs.c.ending_at: None,
        pairs.c.outcome: None, pairs.c.reason: None, pairs.c.verdict: None,
    }  # fmt: skip


def standings(connection: Connection, asked: Sequence[Pair], *, now: float) -> dict[Pair, str]:
    """Tell of each pair whether it is pending, captured, rejected or expired; one that is not known is left out.

    A pair that nobody asked for before it expired counts as expired, also where no harvest has noted that yet.
    """
    columns = (pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id)
    given = _handed_over(connection, columns, [(each.workspace, each.campaign_id, each.send_id) for each in asked])
    same = and_(*(column == given.c[column.name] for column in columns))
    overdue = and_(pairs.c.state.in_(("due", "waiting")), pairs.c.expires_at <= now)
    standing = case((pairs.c.state == "settled", pairs.c.outcome), (overdue, "expired"), else_="pending")
    rows = connection.execute(select(*columns, standing).select_from(given.join(pairs, same)))
    return {Pair(*identity): word for *identity, word in rows}


def wake(connection: Connection, workspace: str, *, now: float) -> None:
    """Make waiting readings due whose time has come, and end those whose pair has expired."""
    mine = pairs.c.workspace == workspace
    connection.execute(update(pairs).where(mine, pairs.c.state == "waiting", pairs.c.due_at <= now).values(state="due"))
    gone = and_(mine, pairs.c.state == "due", pairs.c.expires_at <= now)
    columns = ("pair_id", "reading", "outcome", "ended_at")
    ending = select(pairs.c.id, pairs.c.reading, literal("expired"), literal(now)).where(gone)
    connection.execute(insert(outcomes).from_select(columns, ending))
    connection.execute(update(pairs).where(gone).values(state="settled", outcome="expired"))


def claim(
    connection: Connection, workspace: str, *, batch_id: str, token: str, owner: str,
    limit: int, now: float, lease_until: float, expiring_before: float = math.inf,
) -> Batch | None:  # fmt: skip
    """Lease due readings, nearest deadline first, as one batch. None when nothing is due.

    ``expiring_before`` narrows the claim to pairs that expire before that time.
    """
    wake(connection, workspace, now=now)
    nearest = (
        select(pairs.c.id)
        .where(pairs.c.workspace == workspace, pairs.c.state == "due", pairs.c.expires_at < expiring_before)
        .order_by(pairs.c.expires_at, pairs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    leased = connection.execute(
        update(pairs)
        .where(pairs.c.id.in_(nearest.scalar_subquery()))
        .values(state="leased", batch_id=batch_id, ending_at=func.coalesce(pairs.c.ending_at, now))
        .returning(
            pairs.c.expires_at, pairs.c.id, pairs.c.campaign_id, pairs.c.send_id, pairs.c.reading, pairs.c.ending_at
        )
    ).all()
    if not leased:
        return None
    connection.execute(
        insert(batches).values(
            id=batch_id,
            workspace=workspace,
            owner=owner,
            token=token,
            state="open",
            claimed_at=now,
            lease_until=lease_until,
        )  # fmt: skip
    )
    readings = tuple(
        Reading(pair_id, Pair(workspace, campaign_id, send_id), name, ending_at, expires - GRACE_SECONDS)
        for expires, pair_id, campaign_id, send_id, name, ending_at in sorted(leased, key=tuple)
    )
    return Batch(id=batch_id, token=token, workspace=workspace, claimed_at=now, readings=readings)


def seal(
    connection: Connection, batch: Batch, settlements: Iterable[Settlement], sealed: Sequence[Part],
    *, destination: str, now: float, deferral_delays: Mapping[int, float],
) -> bool:  # fmt: skip
    """Record outcomes and parts together, if the batch is still ours. False, and nothing recorded, if it is not.

    ``deferral_delays`` gives for a deferred pair's id the seconds until it is due again.
    """
    state = "sealed" if sealed else "stored"
    mine = and_(batches.c.id == batch.id, batches.c.token == batch.token, batches.c.state == "open")
    if connection.execute(update(batches).where(mine).values(state=state)).rowcount != 1:
        return False
    ended: list[tuple[object, ...]] = []
    back: list[dict[str, Any]] = []
    for settlement in settlements:
        pair_id, outcome = settlement.reading.pair_id, settlement.outcome
        match outcome:
            case Captured():
                ended.append((pair_id, settlement.reading.name, "captured", outcome.verdict.value, None, None))
            case Rejected():
                ended.append((pair_id, settlement.reading.name, "rejected", None, outcome.reason, outcome.detail))
            case Deferred():
                back.append(
                    {
                        "back_id": pair_id,
                        "back_state": "waiting",
                        "back_due": now + deferral_delays[pair_id],
                        "back_more": 1,
                    }
                )
            case _:
                back.append({"back_id": pair_id, "back_state": "due", "back_due": now, "back_more": 0})
    if ended:
        _settle(connection, ended, batch.id, now=now)
    if back:
        _give_back(connection, back)
    for part in sealed:
        connection.execute(
            insert(parts).values(
                batch_id=batch.id,
                dataset=part.dataset,
                destination=destination,
                name=part.name,
                sha256=part.sha256,
                size_bytes=part.size_bytes,
                row_count=part.row_count,
                data=part.data,
            )  # fmt: skip
        )
    return True


def _settle(connection: Connection, ended: Sequence[Sequence[object]], batch_id: str, *, now: float) -> None:
    """Record outcomes, and settle their pairs by one statement that reads what was just recorded."""
    o = outcomes.c
    columns = (o.pair_id, o.reading, o.outcome, o.verdict, o.reason, o.detail)
    given = select(_handed_over(connection, columns, ended), literal(now), literal(batch_id))
    before = connection.execute(select(func.coalesce(func.max(outcomes.c.id), 0))).scalar_one()
    connection.execute(insert(outcomes).from_select([*columns, o.ended_at, o.batch_id], given))
    recorded = and_(outcomes.c.id > before, outcomes.c.batch_id == batch_id, outcomes.c.pair_id == pairs.c.id)
    settled: dict[Any, Any] = {
        pairs.c.state: "settled", pairs.c.batch_id: None, pairs.c.outcome: outcomes.c.outcome,
        pairs.c.verdict: outcomes.c.verdict, pairs.c.reason: outcomes.c.reason,
    }  # fmt: skip
    connection.execute(update(pairs).where(recorded).values(settled))


def _give_back(connection: Connection, back: list[dict[str, Any]]) -> None:
    returned: dict[Any, Any] = {
        pairs.c.state: bindparam("back_state"), pairs.c.due_at: bindparam("back_due"), pairs.c.batch_id: None,
        pairs.c.deferrals: pairs.c.deferrals + bindparam("back_more"),
    }  # fmt: skip
    connection.execute(update(pairs).where(pairs.c.id == bindparam("back_id")).values(returned), back)


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


def renew(connection: Connection, batch_ids: Sequence[str], *, owner: str, lease_until: float) -> set[str]:
    """Lengthen the lease of open batches; gives those that are still ours."""
    mine = and_(batches.c.id.in_(batch_ids), batches.c.owner == owner, batches.c.state == "open")
    kept = connection.execute(update(batches).where(mine).values(lease_until=lease_until).returning(batches.c.id))
    return set(kept.scalars())


def unfinished_owners(connection: Connection) -> set[str]:
    """Name everyone who holds a batch that is not stored."""
    held = select(batches.c.owner).where(batches.c.state.in_(("open", "sealed"))).distinct()
    return set(connection.execute(held).scalars())


def recover(connection: Connection, *, dead_owners: Iterable[str], owner: str, now: float) -> list[Unstored]:
    """Give back the readings of open batches whose owner is dead or whose lease has run out.

    Sealed batches of such owners become ours; they are returned, oldest first, to be created again.
    """
    lapsed = and_(batches.c.owner != owner, batches.c.owner.in_(list(dead_owners)) | (batches.c.lease_until < now))
    lost = select(batches.c.id).where(batches.c.state == "open", lapsed)
    connection.execute(
        update(pairs)
        .where(pairs.c.state == "leased", pairs.c.batch_id.in_(lost.scalar_subquery()))
        .values(state="due", batch_id=None)
    )
    connection.execute(delete(batches).where(batches.c.state == "open", lapsed))
    connection.execute(update(batches).where(batches.c.state == "sealed", lapsed).values(owner=owner))
    unstored = (
        select(parts.c.batch_id, parts.c.destination, func.sum(parts.c.size_bytes))
        .join(batches, batches.c.id == parts.c.batch_id)
        .where(batches.c.state == "sealed", batches.c.owner == owner)
        .group_by(parts.c.batch_id, parts.c.destination)
        .order_by(parts.c.batch_id)
    )
    return [Unstored(*row) for row in connection.execute(unstored)]


def sealed_parts(connection: Connection, batch_id: str) -> list[Part]:
    """Give the parts of a sealed batch with their bytes, those that are not stored by now."""
    waiting = select(parts).where(parts.c.batch_id == batch_id, parts.c.data.is_not(None)).order_by(parts.c.dataset)
    return [
        Part(row.dataset, row.name, row.sha256, row.size_bytes, row.row_count, row.data)
        for row in connection.execute(waiting)
    ]


def hurry(connection: Connection, workspace: str, *, now: float) -> None:
    """Make deferred readings due at once, as if they had never been deferred: a new run takes them up."""
    deferred = and_(pairs.c.workspace == workspace, pairs.c.state == "waiting", pairs.c.deferrals > 0)
    connection.execute(update(pairs).where(deferred).values(due_at=now, deferrals=0))


def next_due_at(connection: Connection, workspace: str, *, max_deferrals: int) -> float | None:
    """Tell when the next reading falls due, leaving aside those deferred more than ``max_deferrals`` times."""
    mine = and_(pairs.c.workspace == workspace, pairs.c.state.in_(("due", "waiting")))
    soonest = select(func.min(pairs.c.due_at)).where(mine, pairs.c.deferrals <= max_deferrals)
    when: float | None = connection.execute(soonest).scalar_one()
    return when


def requeue(
    connection: Connection, *, outcome: str, now: float, reason: str | None = None, workspace: str | None = None
) -> int:
    """Open again the pairs that ended as ``outcome`` (for ``reason``). Expired ones will not expire a second time."""
    which: list[ColumnElement[bool]] = [pairs.c.state == "settled", pairs.c.outcome == outcome]
    if reason is not None:
        which.append(pairs.c.reason == reason)
    if workspace is not None:
        which.append(pairs.c.workspace == workspace)
    values = _reopened_values() | {pairs.c.due_at: now}
    if outcome == "expired":
        values[pairs.c.expires_at] = NEVER
    return connection.execute(update(pairs).where(*which).values(values)).rowcount


def books(connection: Connection) -> Books:
    """Count the pairs by what became of them."""
    accepted = connection.execute(select(func.count()).select_from(pairs)).scalar_one()
    captured: dict[Verdict, int] = {}
    rejected: dict[str, int] = {}
    expired = pending = 0
    shape = (pairs.c.state, pairs.c.outcome, pairs.c.verdict, pairs.c.reason)
    for state, outcome, verdict, reason, count in connection.execute(select(*shape, func.count()).group_by(*shape)):
        if state in _OPEN:
            pending += count
        elif outcome == "captured":
            captured[Verdict(verdict)] = captured.get(Verdict(verdict), 0) + count
        elif outcome == "rejected":
            rejected[reason] = rejected.get(reason, 0) + count
        elif outcome == "expired":
            expired += count
    return Books(accepted=accepted, captured=captured, rejected=rejected, expired=expired, pending=pending)


def pending(connection: Connection) -> dict[str, int]:
    """Count the open pairs of each workspace."""
    still = select(pairs.c.workspace, func.count()).where(pairs.c.state.in_(_OPEN)).group_by(pairs.c.workspace)
    return {row[0]: row[1] for row in connection.execute(still)}


def reading_counts(connection: Connection) -> dict[str, int]:
    """Count readings by outcome; ``pending`` are the open ones."""
    ended = connection.execute(select(outcomes.c.outcome, func.count()).group_by(outcomes.c.outcome))
    counts = {row[0]: row[1] for row in ended}
    still = select(func.count()).select_from(pairs).where(pairs.c.state.in_(_OPEN))
    return counts | {"pending": connection.execute(still).scalar_one()}


def batch_counts(connection: Connection) -> dict[str, int]:
    """Count batches by state."""
    rows = connection.execute(select(batches.c.state, func.count()).group_by(batches.c.state))
    return {row[0]: row[1] for row in rows}


def expiring(connection: Connection, *, before: float) -> int:
    """Count the open pairs whose deadline is before a time."""
    at_risk = and_(pairs.c.state.in_(_OPEN), pairs.c.expires_at - GRACE_SECONDS < before)
    return connection.execute(select(func.count()).select_from(pairs).where(at_risk)).scalar_one()


def deadlines(connection: Connection) -> Iterable[float]:
    """Give the deadlines of all open pairs, nearest first, streamed."""
    nearest = select(pairs.c.expires_at).where(pairs.c.state.in_(_OPEN)).order_by(pairs.c.expires_at)
    for (when,) in connection.execute(nearest.execution_options(yield_per=10_000)):
        yield when - GRACE_SECONDS


def last_rejections(connection: Connection, *, limit: int) -> list[tuple[Pair, str, str]]:
    """Give the latest rejected pairs, each with reason and detail."""
    latest = (
        select(pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id, outcomes.c.reason, outcomes.c.detail)
        .join(outcomes, outcomes.c.pair_id == pairs.c.id)
        .where(outcomes.c.outcome == "rejected", pairs.c.outcome == "rejected")
        .order_by(outcomes.c.id.desc())
        .limit(limit)
    )
    return [(Pair(w, c, s), reason, detail) for w, c, s, reason, detail in connection.execute(latest)]


def halt(connection: Connection, workspace: str, *, because: str, now: float) -> None:
    """Note that a workspace takes no calls, and why."""
    resume(connection, workspace)
    connection.execute(insert(workspaces).values(name=workspace, halted_at=now, halted_because=because))


def resume(connection: Connection, workspace: str) -> None:
    """Note that a workspace takes calls again."""
    connection.execute(delete(workspaces).where(workspaces.c.name == workspace))


def halted(connection: Connection) -> dict[str, str]:
    """Name the halted workspaces, each with its cause."""
    rows = connection.execute(select(workspaces.c.name, workspaces.c.halted_because))
    return {row.name: row.halted_because for row in rows}


def stored_parts(connection: Connection, *, after: int, limit: int) -> list[StoredPart]:
    """List stored parts in the order of storing, after a bookmark."""
    columns = (
        parts.c.stored_order, parts.c.dataset, parts.c.name, parts.c.sha256,
        parts.c.size_bytes, parts.c.row_count, parts.c.stored_at,
    )  # fmt: skip
    following = select(*columns).where(parts.c.stored_order > after).order_by(parts.c.stored_order).limit(limit)
    return [StoredPart(*row) for row in connection.execute(following)]
