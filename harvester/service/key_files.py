"""Reads key files again, so that a replaced key is used without a restart."""

import asyncio
from collections.abc import Mapping

import structlog

from harvester.engine.wiring import Harvesting
from harvester.errors import UsageError
from harvester.monitor.conditions import Conditions
from harvester.settings import Workspace

log = structlog.get_logger()


class KeyFiles:
    """The key files of all workspaces. Call ``reload`` every few seconds."""

    def __init__(self, workspaces: Mapping[str, Workspace], harvesting: Harvesting, conditions: Conditions) -> None:
        """Give new keys to ``harvesting``, and report unusable files to ``conditions``."""
        self._files = {name: each for name, each in workspaces.items() if each.api_key_file is not None}
        self._harvesting = harvesting
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
            served = self._harvesting.wired[name]
            if served.transport.use_key(key):
                log.info("key_replaced", workspace=name)
                served.pacer.lift()
                served.harvest.look()
