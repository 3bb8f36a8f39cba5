"""Settings from a TOML file, the environment and secret files, all validated before anything starts.

The only package that imports pydantic. All problems are reported at once, by name and never with a value, because a
user may have put a key into the wrong setting.
"""

import os

# pydantic would search all installed packages for plugins, which takes up to 0.1 s.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from harvester.settings.changes import Changes, changes
from harvester.settings.layers import (
    environment_has_workspaces,
    get_network,
    get_store_variables,
    get_trace_endpoint,
    load,
    use_network,
)
from harvester.settings.model import DUPLICATE_WORKSPACE_HINT, Settings
from harvester.settings.network import NetworkSettings
from harvester.settings.proxy import Proxy
from harvester.settings.source import SettingsSource
from harvester.settings.workspace import AGES_DAYS, BRAZE_HOSTS, Workspace

__all__ = [
    "AGES_DAYS",
    "BRAZE_HOSTS",
    "DUPLICATE_WORKSPACE_HINT",
    "Changes",
    "NetworkSettings",
    "Proxy",
    "Settings",
    "SettingsSource",
    "Workspace",
    "changes",
    "environment_has_workspaces",
    "get_network",
    "get_store_variables",
    "get_trace_endpoint",
    "load",
    "use_network",
]
