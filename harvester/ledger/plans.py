"""The plans of readings that a ledger follows, one for each workspace; a workspace without one is read once."""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

import orjson
from sqlalchemy import Select, bindparam, delete, insert, select

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.json_rows import encode_values, values_as_table
from harvester.ledger.locks import lock_ledger
from harvester.ledger.schema import plans
from harvester.schedule import SINGLE_READING_PLAN, ReadingPlan


def get_plan(tx: Transaction, workspace: str) -> ReadingPlan:
    """Return the plan that a workspace's readings follow."""
    return get_plans(tx, [workspace])[workspace]


def get_plans(tx: Transaction, workspaces: Sequence[str]) -> dict[str, ReadingPlan]:
    """Return the plans that the readings of these workspaces follow."""
    rows = tx.execute(_select_plans(tx.dialect), encode_values(workspaces))
    found = {workspace: _parse_plan(ages) for workspace, ages in rows}
    return {workspace: found.get(workspace, SINGLE_READING_PLAN) for workspace in workspaces}


def group_by_plan(tx: Transaction, workspaces: Sequence[str]) -> dict[ReadingPlan, list[str]]:
    """Return the workspaces that follow each plan."""
    groups: dict[ReadingPlan, list[str]] = {}
    for workspace, plan in get_plans(tx, workspaces).items():
        groups.setdefault(plan, []).append(workspace)
    return groups


@cache
def _select_plans(dialect: Dialect) -> Select[str, str]:
    named = values_as_table(dialect, plans.c.workspace)
    return select(plans.c.workspace, plans.c.ages_days).where(plans.c.workspace.in_(select(named.c.workspace)))


@lru_cache
def _parse_plan(ages: str) -> ReadingPlan:
    return ReadingPlan(tuple(orjson.loads(ages)))


def set_plans(tx: Transaction, by_workspace: Mapping[str, ReadingPlan]) -> None:
    """Store the plans of workspaces that changed. Readings that are already planned do not change."""
    lock_ledger(tx)
    wanted = {workspace: orjson.dumps(plan.ages_days).decode() for workspace, plan in by_workspace.items()}
    known = {row.workspace: row.ages_days for row in tx.execute(select(plans))}
    changed = [
        {"workspace": workspace, "ages_days": ages}
        for workspace, ages in wanted.items()
        if known.get(workspace) != ages
    ]
    if changed:
        tx.execute(
            delete(plans).where(plans.c.workspace == bindparam("of")), [{"of": each["workspace"]} for each in changed]
        )
        tx.execute(insert(plans), changed)


def list_planned_workspaces(tx: Transaction) -> list[str]:
    """List the workspaces that have a plan: those that a service serves."""
    return list(tx.execute(select(plans.c.workspace)).scalars())
