"""Logs pairs at risk before their deadlines pass, and pairs that have expired."""

import structlog

from harvester.engine.workspaces import Workspaces
from harvester.ledger import Ledger

ALERT_SECONDS = 3600.0
"""How often an alert about pairs at risk is repeated."""

log = structlog.get_logger()


class DeadlineAlerts:
    """Compares the ledger with what was logged before. Call ``start`` once, then ``log_new`` every few seconds."""

    def __init__(self, ledger: Ledger, workspaces: Workspaces) -> None:
        """Watch the pairs of these workspaces."""
        self._ledger = ledger
        self._workspaces = workspaces
        self._logged: dict[str, tuple[int, float]] = {}
        """The last alert of each workspace: the number of pairs, and its time by the monotonic clock."""
        self._expired: dict[str, int] = {}

    async def start(self) -> None:
        """Count the pairs that have expired by now, so that only those are logged that expire later."""
        self._expired = await self._ledger.reports.count_expired()

    async def log_new(self) -> None:
        """Log pairs at risk when their number grows, then every hour; and pairs that expired since the last call.

        Claims and the periodic work of every process expire pairs, so only the ledger's count includes all of them.
        """
        expired, outlooks = await self._ledger.reports.count_expired(), await self._ledger.reports.get_outlooks()
        now = self._ledger.clock.wall()
        for name in self._workspaces:
            seen = outlooks.get(name)
            if self._is_new(name, seen.at_risk if seen else 0) and seen:
                left = None if seen.nearest_deadline is None else round((seen.nearest_deadline - now) / 3600, 1)
                log.error(
                    "pairs_at_risk",
                    workspace=name,
                    pairs=seen.at_risk,
                    hours_to_nearest_deadline=left,
                    hold_cause=self._workspaces.get_pace_state(name).hold_cause,
                )
        for name, count in expired.items():
            if (newly_expired := count - self._expired.get(name, 0)) > 0:
                log.error(
                    "pairs_expired",
                    workspace=name,
                    pairs=newly_expired,
                    hint="their last numbers are lost; see harvester status",
                )
        self._expired = expired

    def _is_new(self, workspace: str, count: int) -> bool:
        """Return whether ``count`` grew since the last alert, or that alert is an hour old."""
        now = self._ledger.clock.monotonic()  # the time of day may be corrected by days
        last_count, logged_at = self._logged.get(workspace, (0, 0.0))
        if not count:
            self._logged.pop(workspace, None)
        elif count > last_count or now - logged_at >= ALERT_SECONDS:
            self._logged[workspace] = (count, now)
            return True
        return False
