"""The plans of readings that a ledger follows, one for each workspace; a workspace without one is read once."""

import orjson
from sqlalchemy import delete, insert, select

from harvester.ledger.database import Transaction
from harvester.ledger.schema import plans
from harvester.schedule import SINGLE_READING_PLAN, ReadingPlan


def get_plan(tx: Transaction, workspace: str) -> ReadingPlan:
    """Return the plan that a workspace's readings follow."""
    row = tx.execute(select(plans).where(plans.c.workspace == workspace)).one_or_none()
    if row is None:
        return SINGLE_READING_PLAN
    return ReadingPlan.of(workspace, tuple(orjson.loads(row.ages_days)))


def set_plan(tx: Transaction, workspace: str, plan: ReadingPlan) -> None:
    """Store the plan of a workspace. Readings that are already planned do not change."""
    tx.execute(delete(plans).where(plans.c.workspace == workspace))
    ages = orjson.dumps(plan.ages_days).decode()
    tx.execute(insert(plans).values(workspace=workspace, ages_days=ages))


def list_served_workspaces(tx: Transaction) -> list[str]:
    """List the workspaces that have a plan: those that a service serves."""
    return list(tx.execute(select(plans.c.workspace)).scalars())
