"""Loads the settings again when the configuration or a key file changes, so that no change needs a restart."""

import asyncio

import structlog

from harvester.clock import wait_for_event
from harvester.engine.engine import Engine
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.monitor.conditions import Conditions
from harvester.settings import Settings, SettingsSource, changes

CHECK_SECONDS = 5.0
"""How often the files are read."""

log = structlog.get_logger()


class Reload:
    """Watches the files of one service. It is the only caller of ``Engine.apply``."""

    def __init__(self, source: SettingsSource, *, ledger: Ledger, engine: Engine, conditions: Conditions) -> None:
        """Apply new settings to ``engine``, and report unusable files to ``conditions``."""
        self._source = source
        self._ledger = ledger
        self._engine = engine
        self._conditions = conditions
        self._requested = asyncio.Event()
        self._digest: bytes | None = None
        """The digest of the files that were loaded last; None after a problem, which may be over at any time."""
        self._last_problem: str | None = None
        self._last_ignored: tuple[str, ...] = ()

    def request(self) -> None:
        """Load the settings now, even if no file has changed."""
        self._requested.set()

    async def run(self) -> None:
        """Check the files until this is cancelled. Raises ``LedgerError``."""
        while True:
            requested = self._requested.is_set()
            self._requested.clear()
            await self.check(requested=requested)
            await wait_for_event(self._requested, timeout_seconds=CHECK_SECONDS)

    async def check(self, *, requested: bool = False) -> None:
        """Load the settings if a file has changed, or if this is ``requested``. Raises ``LedgerError``."""
        old = self._engine.workspaces.settings
        digest = await asyncio.to_thread(self._source.digest, old)
        if digest == self._digest and not requested:
            return
        try:
            loaded, key_problems = await asyncio.to_thread(self._load)
            await self._apply(loaded.keep(old, fields=(), workspaces=key_problems), requested=requested)
        except UsageError as error:  # perhaps half written; it is read again
            self._refuse(str(error), requested=requested)
            return
        self._conditions.set_config(None)
        self._conditions.set_key_files(key_problems)
        self._last_problem, self._digest = None, None if key_problems else digest

    def _load(self) -> tuple[Settings, dict[str, str]]:
        loaded = self._source.load()
        loaded.load_proxies()
        loaded.load_state()
        return loaded, loaded.find_key_problems()

    def _refuse(self, problem: str, *, requested: bool) -> None:
        problem = problem.replace(":\n", ":").replace("\n", ";")
        if requested or problem != self._last_problem:
            log.error("config_refused", reason=problem, hint="correct it; the previous configuration stays in use")
        self._last_problem, self._digest = problem, None
        self._conditions.set_config(problem)

    async def _apply(self, new: Settings, *, requested: bool) -> None:
        old = self._engine.workspaces.settings
        found = changes(old, new)
        if found.ignored and (requested or found.ignored != self._last_ignored):
            log.warning("config_change_ignored", settings=list(found.ignored), hint="restart to use the new values")
        self._last_ignored = found.ignored
        new = new.keep(old, fields=found.ignored, workspaces=())
        if new == old and not requested:
            return
        await self._engine.apply(new)
        self._conditions.set_pending(await self._ledger.reports.count_pending())
        log.info("config_reloaded", added=len(found.added), removed=len(found.removed), changed=len(found.changed))
