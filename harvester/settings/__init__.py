"""Settings from a TOML file, the environment and secret files, checked as a whole before anything starts.

The only door to pydantic. Every problem is told at once, by name, and never with a value: a key may stand
where another setting was meant.
"""

from harvester.settings.layers import environment_has_workspaces, load, of_stores, of_traces
from harvester.settings.model import ONE_WORKSPACE_TWICE, Settings
from harvester.settings.workspace import AGES_DAYS, BRAZE_HOSTS, Workspace

__all__ = [
    "AGES_DAYS",
    "BRAZE_HOSTS",
    "ONE_WORKSPACE_TWICE",
    "Settings",
    "Workspace",
    "environment_has_workspaces",
    "load",
    "of_stores",
    "of_traces",
]
