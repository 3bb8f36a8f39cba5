"""Reads key files again, so that a replaced key is used without a restart."""

import asyncio
from collections.abc import Mapping

import structlog

from harvester.engine.engine import Engine
from harvester.errors import UsageError
from harvester.monitor.conditions import Conditions
from harvester.settings import Workspace

log = structlog.get_logger()


class KeyFiles:
    """The key files of all workspaces. Call ``reload`` every few seconds."""

    def __init__(self, workspaces: Mapping[str, Workspace], engine: Engine, conditions: Conditions) -> None:
        """Give new keys to ``engine``, and report unusable files to ``conditions``."""
        self._files = {name: each for name, each in workspaces.items() if each.api_key_file is not None}
        self._engine = engine
        self._conditions = conditions

    async def reload(self) -> None:
        """Use keys that were replaced, and probe at once if Braze refused the old key."""
        for name, workspace in self._files.items():
            try:
                key = await asyncio.to_thread(workspace.load_key)
            except UsageError as error:  # perhaps half written; it is read again
                self._conditions.set_key_file(name, str(error))
                continue
            self._conditions.set_key_file(name, None)
            if self._engine.workspaces.use_key(name, key):
                log.info("key_replaced", workspace=name)
                self._engine.wake([name])
