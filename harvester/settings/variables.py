"""Reads the variables named ``HARVESTER_...``, where ``__`` separates a table from its settings.

Tables and lists are JSON. A variable of one setting overrides the JSON of its table.
"""

import json
import os
from typing import Any

from harvester.errors import UsageError
from harvester.settings.model import Settings
from harvester.settings.removed import REMOVED
from harvester.settings.workspace import Workspace

_PREFIX = "harvester_"
_TABLES = {"workspaces": 2, "triggers": 2, "workspace_defaults": 1}
"""The settings that are tables, and their depth: ``workspaces`` contains a table for each workspace."""
_LISTS = ("ages_days", "prefixes")


def read_variables() -> dict[str, Any]:
    """Return the settings in variables, by lower-case names. Raises ``UsageError``, which never shows a value.

    Empty variables are ignored. So are those that name no setting, because an orchestrator sets such variables for a
    service named harvester. A setting of a workspace that names no workspace is refused: it would not apply.
    """
    values: dict[str, Any] = {}
    known = Settings.model_fields.keys() | REMOVED.keys()
    variables = {name.lower(): name for name, value in os.environ.items() if value}
    for lower_name in sorted(each for each in variables if each.startswith(_PREFIX)):  # a table before its settings
        *tables, setting = lower_name.removeprefix(_PREFIX).split("__")
        if tables[0] in _TABLES if tables else setting in known:
            _add_variable(values, tables, setting, variables[lower_name])
        elif not tables and setting in Workspace.model_fields:
            name = f"HARVESTER_WORKSPACES__DEFAULT__{setting.upper()}"
            raise UsageError(f"{variables[lower_name]} is a setting of a workspace; name the workspace, as in {name}")
    return values


def _add_variable(values: dict[str, Any], tables: list[str], setting: str, name: str) -> None:
    table = values
    for depth, each in enumerate(tables, 1):
        table = table.setdefault(each, {})
        if not isinstance(table, dict):
            raise UsageError(f"{name}: {'.'.join(tables[:depth])} is not a table; correct this variable, or unset it")
    is_table = len(tables) < _TABLES.get([*tables, setting][0], 0)
    table[setting] = _parse_json(name) if is_table or setting in _LISTS else os.environ[name]


def _parse_json(name: str) -> Any:
    try:
        return json.loads(os.environ[name])
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is not valid JSON; write a table as an object, and a list as an array") from None
