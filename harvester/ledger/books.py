"""What people, loaders and other rooms want to know of a ledger: it reads, and changes nothing but what is halted.

Each verb is a function over one open transaction; time is an argument.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, case, delete, func, insert, literal_column, or_, select, update

from harvester.ledger.json_rows import handed_over
from harvester.ledger.schema import batches, outcomes, pairs, parts, workspaces
from harvester.model import GRACE_SECONDS, Books, Pair, Verdict
from harvester.schedule import ONCE

_OPEN = ("due", "waiting", "leased", "paused")
_SHAPE = (pairs.c.state, pairs.c.outcome, pairs.c.verdict, pairs.c.reason, pairs.c.captures > literal_column("0"))
_OF_SHAPE = (func.count(), func.min(pairs.c.due_at))
UNSETTLED = pairs.c.state != literal_column("'settled'")
"""As text, since an index of some rows serves only where the database can see that these are the rows."""

TRIED = or_(pairs.c.first_seen_at >= pairs.c.expires_at, pairs.c.captures > 0, pairs.c.deferrals > 0)
"""Whether a pair had its try, or came too late for one."""


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


def books(connection: Connection) -> Books:
    """Count the pairs by what became of them."""
    accepted = connection.execute(select(func.count()).select_from(pairs)).scalar_one()
    return _balance(accepted, connection.execute(select(*_SHAPE, *_OF_SHAPE).group_by(*_SHAPE)))


def books_of_each(connection: Connection) -> dict[str, Books]:
    """Count the pairs of each workspace by what became of them."""
    of = pairs.c.workspace
    accepted = connection.execute(select(of, func.count()).group_by(of)).all()
    shapes: dict[str, list[Sequence[Any]]] = {}
    for row in connection.execute(select(of, *_SHAPE, *_OF_SHAPE).group_by(of, *_SHAPE)):
        shapes.setdefault(row[0], []).append(row[1:])
    return {name: _balance(count, shapes[name]) for name, count in accepted}


def _balance(accepted: int, shapes: Iterable[Sequence[Any]]) -> Books:
    captured: dict[Verdict, int] = {}
    rejected: dict[str, int] = {}
    expired = pending = never_read = 0
    next_readings = []
    for state, outcome, verdict, reason, read, count, due_at in shapes:
        if state in _OPEN:
            pending += count
            never_read += 0 if read else count
            if read and state != "paused":
                next_readings.append(due_at)
        elif outcome == "captured":
            captured[Verdict(verdict)] = captured.get(Verdict(verdict), 0) + count
        elif outcome == "rejected":
            rejected[reason] = rejected.get(reason, 0) + count
        elif outcome == "expired":
            expired += count
    return Books(
        accepted=accepted, captured=captured, rejected=rejected, expired=expired, pending=pending,
        never_read=never_read, next_reading_at=min(next_readings, default=None),
    )  # fmt: skip


def pending(connection: Connection) -> dict[str, int]:
    """Count the open pairs of each workspace."""
    still = select(pairs.c.workspace, func.count()).where(UNSETTLED).group_by(pairs.c.workspace)
    return {row[0]: row[1] for row in connection.execute(still)}


def seem_expired(connection: Connection, *, now: float) -> int:
    """Count the open pairs that have expired if a time is true that nothing has confirmed."""
    gone = and_(UNSETTLED, pairs.c.expires_at <= now)
    return int(connection.execute(select(func.count()).select_from(pairs).where(gone)).scalar_one())


def planned(connection: Connection) -> int:
    """Count the pairs that wait for a reading to come, by plan."""
    by_plan = and_(pairs.c.state == literal_column("'waiting'"), pairs.c.reading != ONCE, pairs.c.deferrals == 0)
    return connection.execute(select(func.count()).select_from(pairs).where(by_plan)).scalar_one()


def reading_counts(connection: Connection) -> dict[str, int]:
    """Count readings by outcome; ``pending`` are the open ones."""
    ended = connection.execute(select(outcomes.c.outcome, func.count()).group_by(outcomes.c.outcome))
    counts = {row[0]: row[1] for row in ended}
    still = select(func.count()).select_from(pairs).where(UNSETTLED)
    return counts | {"pending": connection.execute(still).scalar_one()}


def batch_counts(connection: Connection) -> dict[str, int]:
    """Count batches by state."""
    rows = connection.execute(select(batches.c.state, func.count()).group_by(batches.c.state))
    return {row[0]: row[1] for row in rows}


def batches_without_part(connection: Connection) -> int:
    """Count the batches that are done and brought no row, so that there was nothing to store."""
    with_part = select(parts.c.batch_id).where(parts.c.batch_id == batches.c.id).exists()
    done = select(func.count()).select_from(batches).where(batches.c.state == "stored", ~with_part)
    return int(connection.execute(done).scalar_one())


def deadlines(connection: Connection) -> Iterable[float]:
    """Give the deadlines of all open pairs, nearest first, streamed."""
    nearest = select(pairs.c.expires_at).where(UNSETTLED).order_by(pairs.c.expires_at)
    for (when,) in connection.execute(nearest.execution_options(yield_per=10_000)):
        yield when - GRACE_SECONDS


def halt(connection: Connection, workspace: str, *, because: str, now: float) -> None:
    """Note that a workspace takes no calls, and why; since when is the first such note's time."""
    again = update(workspaces).where(workspaces.c.name == workspace).values(halted_because=because)
    if connection.execute(again).rowcount == 0:
        connection.execute(insert(workspaces).values(name=workspace, halted_at=now, halted_because=because))


def resume(connection: Connection, workspace: str) -> None:
    """Note that a workspace takes calls again."""
    connection.execute(delete(workspaces).where(workspaces.c.name == workspace))


def halted(connection: Connection) -> dict[str, tuple[str, float]]:
    """Name the halted workspaces, each with its cause and since when."""
    return {row.name: (row.halted_because, row.halted_at) for row in connection.execute(select(workspaces))}


def stored_parts(connection: Connection, *, after: int, limit: int) -> list[StoredPart]:
    """List stored parts in the order of storing, after a bookmark."""
    columns = (
        parts.c.stored_order, parts.c.dataset, parts.c.name, parts.c.sha256,
        parts.c.size_bytes, parts.c.row_count, parts.c.stored_at,
    )  # fmt: skip
    following = select(*columns).where(parts.c.stored_order > after).order_by(parts.c.stored_order).limit(limit)
    return [StoredPart(*row) for row in connection.execute(following)]


def newest_parts(connection: Connection, dataset_id: str, *, limit: int) -> list[str]:
    """Return the names of the parts that were stored last in one place's dataset, the newest first."""
    here = select(parts.c.name).where(parts.c.destination == dataset_id, parts.c.stored_order.is_not(None))
    return list(connection.execute(here.order_by(parts.c.stored_order.desc()).limit(limit)).scalars())


def standings(connection: Connection, asked: Sequence[Pair], *, now: float) -> dict[Pair, str]:
    """Tell of each pair whether it is pending, captured, rejected or expired; one that is not known is left out.

    A pair that nobody asked for before it expired counts as expired, also where no harvest has noted that yet.
    """
    columns = (pairs.c.workspace, pairs.c.campaign_id, pairs.c.send_id)
    given = handed_over(connection, columns, [(each.workspace, each.campaign_id, each.send_id) for each in asked])
    same = and_(*(column == given.c[column.name] for column in columns))
    overdue = and_(pairs.c.state.in_(("due", "waiting")), pairs.c.expires_at <= now)
    standing = case((pairs.c.state == "settled", pairs.c.outcome), (overdue, "expired"), else_="pending")
    rows = connection.execute(select(*columns, standing).select_from(given.join(pairs, same)))
    return {Pair(*identity): word for *identity, word in rows}


def next_due_at(
    connection: Connection, workspace: str, *, max_deferrals: int | None = None, unconfirmed_at: float | None = None
) -> float | None:
    """Tell when the next reading falls due, 0 for at once; None when none is planned.

    With ``max_deferrals`` only readings count that are due or were deferred, though not more often than that; with
    ``unconfirmed_at``, a time that nothing has confirmed, only those whose pair has not expired if it is true.
    """
    # Two looks into an index each: both states asked for at once, the database would read every pair there is.
    due = and_(pairs.c.workspace == workspace, pairs.c.state == "due")
    waiting = and_(pairs.c.workspace == workspace, pairs.c.state == "waiting")
    if max_deferrals is not None:
        due = and_(due, pairs.c.deferrals <= max_deferrals)
        waiting = and_(waiting, pairs.c.deferrals > literal_column("0"), pairs.c.deferrals <= max_deferrals)
    if unconfirmed_at is not None:
        left = or_(pairs.c.expires_at > unconfirmed_at, ~TRIED)
        due, waiting = and_(due, left), and_(waiting, left)
    if connection.execute(select(pairs.c.id).where(due).limit(1)).first():
        return 0.0
    when: float | None = connection.execute(select(func.min(pairs.c.due_at)).where(waiting)).scalar_one()
    return when
