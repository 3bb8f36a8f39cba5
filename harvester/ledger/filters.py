"""Conditions and values of pairs that several statements share.

States are literals in them: a database uses a partial index only if it can see its condition.
"""

from sqlalchemy import BindParameter, ColumnElement, Float, and_, bindparam, case, func, literal_column, or_, select

from harvester.ledger.dialect import Dialect
from harvester.ledger.json_rows import values_as_table
from harvester.ledger.schema import pairs
from harvester.schedule import ONCE

NOW: BindParameter[float] = bindparam("now", type_=Float)
"""The time of the transaction that executes the statement."""

LEASE_NOW: BindParameter[float] = bindparam("lease_now", type_=Float)
"""The time of the transaction by the clock of leases."""

LEASE_UNTIL: BindParameter[float] = bindparam("lease_until", type_=Float)
"""When a lease ends that the transaction takes or renews."""

UNSETTLED = pairs.c.state != literal_column("'settled'")
WAITING = pairs.c.state == literal_column("'waiting'")
DUE = pairs.c.state == literal_column("'due'")
LEASED = pairs.c.state == literal_column("'leased'")
EXPIRED = pairs.c.outcome == literal_column("'expired'")
DEFERRED = and_(WAITING, pairs.c.deferrals > literal_column("0"))

TRIED = or_(pairs.c.first_seen_at >= pairs.c.expires_at, pairs.c.captures > 0, pairs.c.deferrals > 0)
"""Whether a pair was attempted, or arrived expired."""

PRIORITY = (pairs.c.low_priority, pairs.c.expires_at, pairs.c.id)
"""The order of claims: the nearest deadline first, low priority last."""

SINCE = func.coalesce(pairs.c.sent_at, pairs.c.first_seen_at)
"""The send time, or when the pair was first seen if that is unknown; see ``Reading.since``."""


OVERDUE = and_(or_(DUE, WAITING), pairs.c.expires_at <= NOW, TRIED)
"""Whether a pair has expired that no process has ended yet."""

IN_TIME = or_(pairs.c.expires_at > NOW, ~TRIED)
"""Whether a pair may be requested: it has not expired, or it came in time and was never attempted."""


def is_named(dialect: Dialect) -> ColumnElement[bool]:
    """Return whether a pair is in one of the workspaces that ``encode_values`` gives to the statement."""
    named = values_as_table(dialect, pairs.c.workspace)
    return pairs.c.workspace.in_(select(named.c.workspace))


def released_state(due_at: ColumnElement[float], *, deferred: ColumnElement[bool] | None = None) -> ColumnElement[str]:
    """Return the state of a released reading: due, or waiting until it is.

    A reading of a pair that is read once waits only if it was ``deferred``. Otherwise it could wait too long after the
    clock was set back.
    """
    once = pairs.c.reading == ONCE
    at_once = once if deferred is None else and_(once, ~deferred)
    return case((or_(at_once, due_at <= NOW), "due"), else_="waiting")
