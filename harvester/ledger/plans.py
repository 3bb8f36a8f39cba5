"""The plans of readings that a ledger follows, one for each workspace; a workspace without one is read once."""

import orjson
from sqlalchemy import ColumnElement, Connection, and_, case, delete, insert, or_, select

from harvester.ledger.schema import pairs, plans
from harvester.model import DAY_SECONDS, RETENTION_SECONDS
from harvester.schedule import MARGIN_SECONDS, ONCE, ONLY_ONCE, ReadingPlan


def plan_of(connection: Connection, workspace: str) -> ReadingPlan:
    """Give the plan that a workspace's readings follow."""
    row = connection.execute(select(plans).where(plans.c.workspace == workspace)).one_or_none()
    if row is None:
        return ONLY_ONCE
    return ReadingPlan.of(workspace, tuple(orjson.loads(row.ages_days)))


def resting(
    due_at: ColumnElement[float], now: float, *, put_off: ColumnElement[bool] | None = None
) -> ColumnElement[str]:
    """Give the state of a reading that nobody holds any more: due, or waiting until it is.

    What is read once waits for nothing, unless it was ``put_off``: a clock that was set back would leave it behind.
    """
    once = pairs.c.reading == ONCE
    at_once = once if put_off is None else and_(once, ~put_off)
    return case((or_(at_once, due_at <= now), "due"), else_="waiting")


def followed(connection: Connection) -> list[str]:
    """Name the workspaces that have a plan: those that a service serves."""
    return list(connection.execute(select(plans.c.workspace)).scalars())


def follow(connection: Connection, workspace: str, plan: ReadingPlan) -> None:
    """Let a workspace's readings follow a plan from now on; readings that are planned already stay where they are."""
    connection.execute(delete(plans).where(plans.c.workspace == workspace))
    ages = orjson.dumps(plan.ages_days).decode()
    connection.execute(
        insert(plans).values(
            workspace=workspace,
            ages_days=ages,
            retention_days=RETENTION_SECONDS / DAY_SECONDS,
            margin_days=MARGIN_SECONDS / DAY_SECONDS,
        )
    )
