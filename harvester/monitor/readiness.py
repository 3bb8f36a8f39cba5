"""Decides whether the process can do useful work."""

from collections.abc import Iterable, Mapping

from harvester.condition import Condition, Scope


def blocking_conditions(conditions: Iterable[Condition], busy: Mapping[str, bool]) -> list[Condition]:
    """Return the conditions that prevent all useful work; an empty list means that the process is ready.

    ``busy`` maps each workspace to whether it has readings to capture. A blocking condition of the process makes it
    unready. Blocked workspaces do so only if every busy workspace is blocked (or all of them, if none is busy). One of
    several places blocks the workspaces whose rows it takes.
    """
    blocking = [each for each in conditions if each.blocks]
    by_workspace = [each for each in blocking if each.scope in (Scope.WORKSPACE, Scope.PLACE)]
    reasons = [each for each in blocking if each.scope is Scope.PROCESS]
    wanted = {name for name, has_work in busy.items() if has_work} or set(busy)
    blocked = {name for each in by_workspace for name in each.workspaces or (each.subject,)}
    if wanted and wanted <= blocked:
        reasons += by_workspace
    return reasons
