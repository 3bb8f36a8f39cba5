"""Takes snapshots of a running engine, from the ledger and the state of the engine, which it never changes."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from harvester import __version__
from harvester.condition import Component, Condition
from harvester.engine.assignment import list_assigned
from harvester.engine.engine import Engine
from harvester.engine.places import Place
from harvester.ledger import Ledger, Outlook
from harvester.monitor.activity import ActivityHistory
from harvester.monitor.history import QuotaHistory
from harvester.monitor.snapshot import PlaceState, ReplicasState, Snapshot, StoreState, TriggerState, WorkspaceState
from harvester.settings import Settings
from harvester.sources.messages.trigger import Trigger

PACE_TOLERANCE = 0.1
"""A pace is stored again once it differs by this fraction."""

REJECTIONS = 10


class Monitor:
    """Observes one engine. Call ``sample`` every few seconds, so that the history of the quota has no gaps."""

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        engine: Engine,
        triggers: Sequence[Trigger],
        conditions: Callable[[], Sequence[Condition]],
    ) -> None:
        """Observe ``engine`` and ``triggers``, which already run."""
        self._conditions = conditions
        self._triggers = triggers
        self._settings = settings
        self._ledger = ledger
        self._engine = engine
        self._clock = ledger.clock
        self._started = ledger.clock.monotonic()
        self._histories: defaultdict[str, QuotaHistory] = defaultdict(QuotaHistory)
        self._activity: defaultdict[str, ActivityHistory] = defaultdict(ActivityHistory)
        self._last_captures: dict[str, float] | None = None
        self._paces: dict[str, float] = {}

    def sample(self) -> None:
        """Add the current quota of each workspace to its history."""
        for name in self._engine.workspaces.list_access():
            self._histories[name].sample(self._engine.workspaces.get_pace_state(name), self._clock.wall())
            self._activity[name].sample(self._engine.workspaces.get_counters(name), self._clock.wall())

    async def snapshot(self) -> Snapshot:
        """Take a snapshot. Raises ``LedgerError``, at once if the ledger's server is unavailable."""
        return await self._ledger.cancel_if_unavailable(self._take_snapshot())

    async def _take_snapshot(self) -> Snapshot:
        now = self._clock.wall()
        self.sample()
        if self._last_captures is None:
            self._last_captures = await self._ledger.reports.get_last_captures()
        expired = await self._ledger.reports.count_expired()
        halted = await self._ledger.reports.list_halted()
        names = self._engine.workspaces.names
        outlooks = await self._ledger.reports.get_outlooks(names)
        others, replicas = await self._get_replicas()
        conditions = tuple(self._conditions())
        unconfigured = [each.subject for each in conditions if each.component is Component.WORKSPACE]
        workspaces = [
            self._workspace(
                name,
                now,
                outlooks[name],
                expired=expired.get(name, 0),
                halted_since=halted[name][1] if name in halted else None,
                replica=None if self._engine.serves(name) else others.get(name),
            )
            for name in names
            if name in self._engine.workspaces
        ]
        at_risk = {name: outlooks[name].at_risk for name in unconfigured if name in outlooks}
        return Snapshot(
            taken_at=now,
            started_at=now - (self._clock.monotonic() - self._started),
            version=__version__,
            workspaces=tuple(workspaces),
            triggers=tuple(self._trigger(each) for each in self._triggers),
            store=await self._store(),
            replicas=replicas,
            books=await self._ledger.reports.get_books(),
            rejections=tuple(await self._ledger.reports.list_rejections(limit=REJECTIONS)),
            conditions=conditions,
            unconfigured_at_risk=at_risk,
            captures=dict(self._engine.counters.captures),
            lateness=self._engine.counters.lateness.state(),
            durations=self._engine.workspaces.durations.state(),
            clock_difference_seconds=self._clock.difference,
        )

    def _workspace(
        self, name: str, now: float, seen: Outlook, *, expired: int, halted_since: float | None, replica: str | None
    ) -> WorkspaceState:
        workspaces = self._engine.workspaces
        state, counters, access = workspaces.get_pace_state(name), workspaces.get_counters(name), workspaces.find(name)
        halt = access.client.endpoint.halt if access else None
        return WorkspaceState(
            name=name,
            replica=replica,
            pace=state.pace,
            in_flight=state.in_flight,
            window=self._histories[name].window,
            hold_cause=state.hold_cause,
            hold_until=now + state.held_seconds,
            halt_reason=halt.reason if halt else None,
            halted_since=halted_since,
            waited_seconds=state.waited_seconds,
            readings=seen.readings,
            at_risk=seen.at_risk,
            expired=expired,
            last_captured_at=counters.last_captured_at or (self._last_captures or {}).get(name, 0.0),
            next_due_at=seen.next_due_at,
            nearest_deadline=seen.nearest_deadline,
            deadlines=seen.days,
            activity=self._activity[name].list_quarters(now) if name in self._activity else (),
            requests=dict(counters.requests),
            responses=dict(counters.responses),
        )

    async def store_paces(self) -> None:
        """Store the sustained pace of each workspace in the ledger, so that other commands can count pairs at risk.

        Only the replica that serves a workspace knows its pace.
        """
        changed = {}
        for name in self._engine.workspaces.names:
            if not self._engine.serves(name):
                self._paces.pop(name, None)
                continue
            pace, stored = self._sustained_pace(name), self._paces.get(name)
            if stored is None or abs(pace - stored) > PACE_TOLERANCE * max(pace, stored):
                changed[name] = pace
        if changed:
            await self._ledger.upkeep.save_paces(changed)
            self._paces |= changed

    def _sustained_pace(self, name: str) -> float:
        """Return the requests per second that are possible over hours, if the use by others stays the same.

        Halted workspaces and unavailable endpoints do not lower it: they are conditions.
        """
        workspaces = self._engine.workspaces
        workspace, state = workspaces.settings.workspaces[name], workspaces.get_pace_state(name)
        if not state.limit:
            return workspace.max_rate
        window = self._histories[name].window
        others = window.others / max(self._clock.wall() - window.began_at, 60.0)
        return max(0.0, min(state.limit * (1 - workspace.reserve) / 3600 - others, workspace.max_rate))

    def _trigger(self, trigger: Trigger) -> TriggerState:
        return TriggerState(
            name=trigger.name,
            kind=self._settings.triggers[trigger.name].kind,
            connected=trigger.problem is None,
            last_error=trigger.problem,
            messages=dict(trigger.outcomes),
        )

    async def _get_replicas(self) -> tuple[dict[str, str], ReplicasState]:
        """Return the other replica that a workspace is assigned to, and the state of all replicas."""
        found = await self._ledger.reports.get_replicas()
        assigned = list_assigned(self._engine.workspaces.names, tuple(found.owners))
        counts = {owner: len(names) for owner, names in assigned.items()}
        own = self._ledger.batches.owner
        others = {name: owner for owner, names in assigned.items() if owner != own for name in names}
        return others, ReplicasState(own, counts, tuple(found.unserved))

    async def _store(self) -> StoreState:
        counters, problem = self._engine.counters, self._engine.uploader.problem
        places = [self._place(each) for each in self._engine.places.list_used()]
        return StoreState(
            place=self._settings.out,
            problem=str(problem) if problem else None,
            unavailable=sum(each.problem is not None for each in places),
            places=() if len(places) == 1 else tuple(sorted(places, key=lambda each: each.problem is None)),
            batches=await self._ledger.reports.count_unstored_batches(),
            sealed_bytes=await self._ledger.reports.get_sealed_bytes(),
            parts=counters.parts,
            rows=counters.rows,
            part_bytes=counters.part_bytes,
        )

    def _place(self, place: Place) -> PlaceState:
        return PlaceState(
            place=place.sink.place,
            workspaces=len(self._engine.places.list_workspaces(place)),
            problem=str(place.outage.problem) if place.outage else None,
            waiting_batches=len(place.waiting),
            waiting_bytes=place.sealed_bytes,
        )
