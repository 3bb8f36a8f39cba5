"""Adds pairs: new ones are inserted, known ones are updated by one statement for each event.

A known pair may begin another round, because send ids may be used again. It may also start to follow a plan. The time
of its send may become known, or be earlier than the known one. A captured pair is not requested again unless it is a
new send.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Executable,
    Select,
    Update,
    and_,
    bindparam,
    func,
    literal,
    select,
    true,
)

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.filters import NOW
from harvester.ledger.json_rows import encode_rows, rows_as_table
from harvester.ledger.known_pairs import (
    KnownPairs,
    begin_round,
    is_past_retention,
    keep_open,
    learn_send_time,
    move_times,
    reopen_expired,
    start_plan,
    take_earlier_time,
)
from harvester.ledger.locks import lock_arrived
from harvester.ledger.plans import get_plans
from harvester.ledger.schema import IDENTITY, NEVER, pairs
from harvester.model import Pair, SentPair
from harvester.schedule import ONCE, SINGLE_READING_PLAN, ReadingPlan

_COLUMNS = (*IDENTITY, pairs.c.sent_at, pairs.c.expires_at, pairs.c.reading, pairs.c.due_at, pairs.c.state)

_WHICH = {"any": true(), "planned": pairs.c.reading != ONCE, "once": pairs.c.reading == ONCE}
"""Which known pairs a statement updates: by how they are read."""

_BEFORE: BindParameter[int] = bindparam("before", type_=BigInteger)
"""The highest id of the pairs that were there before the arrivals."""

_MAX_ID = 2**62
_FEW = 500
"""The number of arrivals up to which every query plan is fast."""

Row = tuple[Any, ...]
"""The values of ``_COLUMNS``."""

_LAST_ID = select(func.coalesce(func.max(pairs.c.id), 0))
_COUNT_NEW = select(func.count()).select_from(pairs).where(pairs.c.id > _BEFORE)


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    """The numbers of enqueued pairs that were new and known.

    ``in_question`` is a settled pair whose retention seems over, but the time is not confirmed.
    """

    new: int
    known: int
    in_question: Pair | None = None


def enqueue(
    tx: Transaction,
    arrivals: Sequence[SentPair],
    *,
    once: bool = False,
    forced: bool = False,
    trust_clock: bool = False,
) -> EnqueueResult:
    """Add pairs, to be read by the plan of their workspace or ``once``; a known pair stays one pair.

    ``forced`` pairs do not expire, and expired ones are opened again. While the time is not confirmed, and without
    ``trust_clock``, no retention counts as over. A wrong clock therefore causes no new reading. The clock to trust is
    the server's, if the ledger is in a database: those of the machines that use it may differ.
    """
    if trust_clock and not tx.confirmed and not tx.dialect.single_writer:
        tx = replace(tx, now=tx.lease_now)
    latest = _keep_latest(arrivals)
    plans = get_plans(tx, sorted({pair.workspace for pair in latest}))
    by_plan = [_build_row(each, plans[pair.workspace], tx.now, forced=forced) for pair, each in latest.items()]
    rows = by_plan
    if once:
        rows = [_build_row(each, SINGLE_READING_PLAN, tx.now, forced=forced) for each in latest.values()]
    inserted = _insert_new(tx, rows)
    question = None
    if inserted.number < len(rows):
        confirmed = tx.confirmed or trust_clock
        # A list that is read once does not end a plan.
        changes = [("planned", by_plan), ("once", rows)] if once else [("any", rows)]
        for which, arrived in changes:
            known = inserted.select_known(arrived)
            lock_arrived(tx, known)
            values = encode_rows(known) | {"before": inserted.before}
            for statement in _update_known(tx.dialect, which, forced=forced, confirmed=confirmed):
                tx.execute(statement, values)
        question = None if confirmed else _find_past_retention(tx, rows)
    return EnqueueResult(new=inserted.number, known=len(arrivals) - inserted.number, in_question=question)


def enqueue_new(tx: Transaction, arrivals: Sequence[SentPair]) -> int:
    """Add pairs that the ledger does not contain, to be read once, and leave all others unchanged.

    Returns how many were new.
    """
    rows = [_build_row(each, SINGLE_READING_PLAN, tx.now, forced=False) for each in arrivals]
    return _insert_new(tx, rows).number


@dataclass(frozen=True, slots=True)
class _Inserted:
    """How many pairs were inserted, and which: those after the id ``before``, or those with these identities."""

    number: int
    before: int = _MAX_ID
    identities: frozenset[tuple[object, ...]] = frozenset()

    def select_known(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows of pairs that were not inserted, as far as their identities tell."""
        return [row for row in rows if row[:3] not in self.identities] if self.identities else rows


def _insert_new(tx: Transaction, rows: Sequence[Row]) -> _Inserted:
    if tx.dialect.single_writer:
        before = tx.execute(_LAST_ID).scalar_one()
        tx.execute(_insert(tx.dialect), encode_rows(rows))
        return _Inserted(tx.execute(_COUNT_NEW, {"before": before}).scalar_one(), before)
    # In the order of the unique index: transactions that insert the same pairs wait for each other in one direction.
    ordered = sorted(rows, key=lambda row: row[:3])
    found = frozenset(tuple(row) for row in tx.execute(_insert(tx.dialect), encode_rows(ordered)))
    if len(found) > _FEW:
        tx.dialect.analyze_pairs(tx.connection)
    return _Inserted(len(found), identities=found)


def _keep_latest(arrivals: Sequence[SentPair]) -> dict[Pair, SentPair]:
    """Return each pair once, with the latest time of its send."""
    latest: dict[Pair, SentPair] = {}
    for each in arrivals:
        other = latest.get(each.pair)
        if other is None or (each.sent_at or 0) > (other.sent_at or 0):
            latest[each.pair] = each
    return latest


def _build_row(arrival: SentPair, plan: ReadingPlan, now: float, *, forced: bool) -> Row:
    pair, sent_at = arrival.pair, arrival.sent_at
    expires_at = NEVER if forced else plan.expires_at(now if sent_at is None else sent_at)
    first = plan.first(sent_at, now)
    state = "due" if first.due_at <= now else "waiting"
    return (pair.workspace, pair.campaign_id, pair.send_id, sent_at, expires_at, first.name, first.due_at, state)


@cache
def _insert(dialect: Dialect) -> Executable:
    """Insert the pairs that are new. If several transactions write at the same time, it returns their identities."""
    arrived = rows_as_table(dialect, _COLUMNS)
    # SQLite would parse ON CONFLICT after a SELECT as the ON of a join, unless there is a WHERE between them.
    every = select(arrived, NOW, literal(0)).where(true())
    columns = [*(column.name for column in _COLUMNS), "first_seen_at", "deferrals"]
    # It ignores only conflicts of the identity. Without a target, it would also skip a new pair whose id is in use.
    statement = dialect.insert(pairs).from_select(columns, every).on_conflict_do_nothing(index_elements=IDENTITY)
    returned: Executable = statement if dialect.single_writer else statement.returning(*IDENTITY)
    return returned


@cache
def _update_known(dialect: Dialect, which: str, *, forced: bool, confirmed: bool) -> tuple[Update, ...]:
    """Return a statement for each event that updates known pairs. At most one event applies to a pair.

    ``forced`` reopens expired pairs, and keeps open pairs from expiring.
    """
    known = _join_known(dialect, _WHICH[which])
    if not forced:
        learn = (learn_send_time(known), take_earlier_time(known), move_times(known))
        return (begin_round(known, confirmed=confirmed), start_plan(known), *learn)
    expired = KnownPairs(known.arrived, and_(known.same, pairs.c.outcome == "expired"))
    return (begin_round(expired, confirmed=confirmed), start_plan(expired), reopen_expired(expired), keep_open(known))


def _join_known(dialect: Dialect, which: ColumnElement[bool]) -> KnownPairs:
    """Join the arrivals with the pairs that were there ``before``."""
    arrived = rows_as_table(dialect, _COLUMNS)
    identity = (pairs.c[column.name] == arrived.c[column.name] for column in IDENTITY)
    return KnownPairs(arrived, and_(which, pairs.c.id <= _BEFORE, *identity))


def _find_past_retention(tx: Transaction, rows: Sequence[Sequence[object]]) -> Pair | None:
    row = tx.execute(_select_past_retention(tx.dialect), encode_rows(rows)).first()
    return None if row is None else Pair(*row)


@cache
def _select_past_retention(dialect: Dialect) -> Select[str, str, str]:
    """Select one pair that arrived whose retention seems over."""
    arrived = rows_as_table(dialect, _COLUMNS)
    same = (pairs.c[column.name] == arrived.c[column.name] for column in IDENTITY)
    return select(*IDENTITY).where(*same, is_past_retention(arrived)).limit(1)
