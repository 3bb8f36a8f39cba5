"""The plans of readings that a ledger follows, one for each workspace; a workspace without one is read once."""

import orjson
from sqlalchemy import Connection, delete, insert, select

from harvester.ledger.schedule import ONLY_ONCE, ReadingPlan
from harvester.ledger.schema import plans


def plan_of(connection: Connection, workspace: str) -> ReadingPlan:
    """Give the plan that a workspace's readings follow."""
    row = connection.execute(select(plans).where(plans.c.workspace == workspace)).one_or_none()
    if row is None:
        return ONLY_ONCE
    return ReadingPlan.of(workspace, tuple(orjson.loads(row.ages_days)), row.retention_days, row.margin_days)


def followed(connection: Connection) -> list[str]:
    """Name the workspaces that have a plan: those that a service serves."""
    return list(connection.execute(select(plans.c.workspace)).scalars())


def follow(connection: Connection, workspace: str, plan: ReadingPlan) -> None:
    """Let a workspace's readings follow a plan from now on; readings that are planned already stay where they are."""
    connection.execute(delete(plans).where(plans.c.workspace == workspace))
    ages = orjson.dumps(plan.ages_days).decode()
    connection.execute(
        insert(plans).values(
            workspace=workspace, ages_days=ages, retention_days=plan.retention_days, margin_days=plan.margin_days
        )
    )
