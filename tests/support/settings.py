"""Settings loaded as the command line loads them, without options of the process."""

from pathlib import Path
from typing import Any

import pytest

from harvester.errors import UsageError
from harvester.settings import Settings, Workspace, load

BRAZE = "https://rest.fra-01.braze.eu"


def load_settings(config: Path | None = None, /, **workspace: Any) -> Settings:
    """Load settings with options of a workspace."""
    return load(config, {}, workspace)


def load_error(config: Path | None = None, /, **workspace: Any) -> str:
    """Load invalid settings and return the error message."""
    with pytest.raises(UsageError) as refused:
        load_settings(config, **workspace)
    return str(refused.value)


def load_workspace(**workspace: Any) -> Workspace:
    """Load settings with one workspace, without a file, and return the workspace."""
    return load_settings(None, **{"endpoint": BRAZE} | workspace).workspaces["default"]
