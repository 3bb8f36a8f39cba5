"""Collects all conditions of a service from memory, and logs changes.

It never waits, so a ledger that hangs does not delay it.
"""

import asyncio
from collections.abc import Mapping, Sequence

from harvester.clock import Clock
from harvester.condition import Component, Condition, ConditionLog
from harvester.engine.engine import Engine
from harvester.formatting import quantity
from harvester.ledger import Ledger
from harvester.sources.messages.trigger import Trigger

LEDGER_PATIENCE_SECONDS = 10.0
"""The ledger is unavailable once it has not responded for this time."""


_NOT_CONFIGURED = "its {} are not read unless another process serves it; add it to the configuration"


class Conditions:
    """Collects conditions: call the object to get the current ones, and ``report`` every few seconds to log them."""

    def __init__(self, *, engine: Engine, triggers: Sequence[Trigger], ledger: Ledger, clock: Clock) -> None:
        """Nothing is logged yet."""
        self._engine = engine
        self.triggers = list(triggers)
        self._ledger = ledger
        self._clock = clock
        self._log = ConditionLog(clock)
        self._config: tuple[str, float] | None = None
        self._key_files: dict[str, tuple[str, float]] = {}
        self._unconfigured: dict[str, tuple[str, float]] = {}
        self._probe: asyncio.Task[object] | None = None
        self._probed_at = 0.0

    def __call__(self) -> list[Condition]:
        """Return the current conditions."""
        found = [*self._of_ledger(), *self._engine.conditions()]
        if self._config is not None:
            found.append(self._fault(Component.CONFIG, "invalid", "", *self._config))
        halted_workspaces = {each.subject for each in found if each.component is Component.KEY}
        found += [
            self._fault(Component.KEY, "file", name, *each)
            for name, each in self._key_files.items()
            if name not in halted_workspaces
        ]
        found += [
            self._fault(Component.WORKSPACE, "unconfigured", name, *each) for name, each in self._unconfigured.items()
        ]
        now = self._clock.monotonic()
        for each in self.triggers:
            if each.failing is not None:
                since = self._clock.wall() - (now - each.failing.since)
                found.append(Condition(Component.BROKER, each.failing.cause, since, each.name, each.failing.detail))
        return found

    def _fault(self, component: Component, cause: str, subject: str, detail: str, began: float) -> Condition:
        """Return a condition that stops no work; ``began`` is monotonic, since the time of day may be corrected."""
        since = self._clock.wall() - (self._clock.monotonic() - began)
        return Condition(component, cause, since, subject, detail, blocks=False)

    def report(self) -> None:
        """Log conditions that begin, last or end."""
        self._probe_ledger()
        self.log_changes()

    def log_changes(self) -> None:
        """Log conditions that begin, last or end, without a query."""
        self._log.update(self())

    def set_config(self, problem: str | None) -> None:
        """Record why the configuration cannot be loaded again; None if it can. The previous one stays in use."""
        since = self._clock.monotonic() if self._config is None else self._config[1]
        self._config = None if problem is None else (problem, since)

    def set_key_files(self, problems: Mapping[str, str]) -> None:
        """Record why key files cannot be used, by workspace. These workspaces stay as they are."""
        now, before = self._clock.monotonic(), self._key_files
        self._key_files = {
            name: (problem, before[name][1] if name in before else now) for name, problem in problems.items()
        }

    def set_pending(self, pending: Mapping[str, int]) -> None:
        """Record the open pairs of each workspace. Those of a workspace that is not configured are not read."""
        now, before = self._clock.monotonic(), self._unconfigured
        self._unconfigured = {
            name: (_NOT_CONFIGURED.format(quantity(count, "pending pair")), before[name][1] if name in before else now)
            for name, count in pending.items()
            if count and name not in self._engine.workspaces
        }

    def _probe_ledger(self) -> None:
        """Start a small query of the ledger, unless one is still running."""
        if self._probe is None or self._probe.done():
            if self._has_responded():
                self._probed_at = self._clock.monotonic()
            self._probe = asyncio.create_task(self._ledger.upkeep.ping(), name="ledger probe")
            # A failure is reported, or ends the service, at the next real query.
            self._probe.add_done_callback(lambda probe: probe.cancelled() or probe.exception())

    def _has_responded(self) -> bool:
        """Return whether the last query has succeeded, or there was none. A process that stops gives up queries."""
        probe = self._probe
        return probe is None or (probe.done() and not probe.cancelled() and probe.exception() is None)

    def _of_ledger(self) -> list[Condition]:
        if self._ledger.lost is not None:
            return [Condition(Component.LEDGER, "lost", self._clock.wall(), detail=str(self._ledger.lost))]
        if self._has_responded() or self._ledger.outage is not None:  # the engine reports it
            return []
        seconds = self._clock.monotonic() - self._probed_at
        if seconds < LEDGER_PATIENCE_SECONDS:
            return []
        detail = f"it has not responded for {seconds:.0f} seconds"
        return [Condition(Component.LEDGER, "timeout", self._clock.wall() - seconds, detail=detail)]
