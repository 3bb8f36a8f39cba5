"""Replicas in virtual time: the plan of readings, the order of claims, the assignment and the pace are harvester's.

Requests, ledger and place are counted, not made. A step is up to a minute of one workspace's readings at its pace.
"""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.runtime.simulated_scene import Deaths, Outage, Result, Scene, find_alert
from benchmarks.runtime.simulated_workspace import HOUR_SECONDS, PLAN, Group, SimulatedWorkspace
from harvester.engine.assignment import list_assigned
from harvester.engine.periodic_work import HOUSEKEEPING_SECONDS, PAGE
from harvester.ledger import LEASE_SECONDS
from harvester.model import DAY_SECONDS, RETENTION_SECONDS
from harvester.schedule import FINAL

STEP_SECONDS = 60.0
CAPACITY_SECONDS = 300.0
"""The capacity of ledger and replicas is divided in periods of this length. Later workspaces wait for the next one."""

BYTES_OF_READING = 600
"""Sealed bytes of a reading with the default compression: 1.8 MB for 3,000 pairs in the demo."""

IDLE_RATE = 1.0
"""Transactions per second of an idle replica: 2.9 were measured for three, with 200 workspaces (docs/sizing.md)."""

QUOTA, REPLICA, LEDGER = "quota of a workspace", "requests of a replica", "readings of the ledger"
LEDGER_OUTAGE, PLACE_OUTAGE, NO_REPLICA = "ledger unavailable", "max_sealed_bytes", "no replica"


class Simulation:
    """Replicas in virtual time, from second 0."""

    def __init__(self, scene: Scene, seed: int = 7) -> None:
        """Create the workspaces, with all their sends, and the replicas."""
        self.scene, self.result = scene, Result()
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[float, Any], None], Any]] = []
        self._count = 0
        self._now = 0.0
        self._workspaces = [
            SimulatedWorkspace(f"w{at}", self._random.uniform(*scene.live_shares)) for at in range(scene.workspaces)
        ]
        self._names = tuple(each.name for each in self._workspaces)
        self._alive = {f"replica-{at}": True for at in range(scene.replicas)}
        """Each owner whose lease has not ended, and whether it lives."""
        self._server: dict[str, str] = {}
        self._stopped: list[SimulatedWorkspace] = []
        """Workspaces with due readings whose replica is dead."""
        self._dark = [scene.ledger_outage]
        """When no metrics of the ledger can be read: ``HarvesterDown`` fires."""
        self._done: defaultdict[tuple[str, int], int] = defaultdict(int)
        """Readings by owner and minute."""
        self._used: defaultdict[tuple[str, int], int] = defaultdict(int)
        """Readings by owner, or the ledger, and period."""
        self._claims: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._sealed_bytes = 0.0

    def run(self, *, until_late: bool = False) -> Result:
        """Run to the end of the last send's retention, or only until a send is late."""
        scene = self.scene
        self._assign()
        for workspace in self._workspaces:
            for sent_at, size in self._draw_campaigns():
                self._push(sent_at, self._arrive, (workspace, sent_at, size))
        for _ in range(round(scene.deaths_per_day * scene.days)):
            self._push_deaths(Deaths(self._random.uniform(0, scene.days * DAY_SECONDS)))
        for deaths in scene.deaths:
            self._push_deaths(deaths)
        while self._events and not (until_late and self.result.late):
            self._now, _, handle, value = heapq.heappop(self._events)
            handle(self._now, value)
        self._count_transactions()
        return self.result

    def _push(self, at: float, handle: Callable[[float, Any], None], value: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, handle, value))

    def _push_deaths(self, deaths: Deaths) -> None:
        self._push(deaths.at, self._kill, deaths)

    def _draw_campaigns(self) -> Iterator[tuple[float, int]]:
        """Draw the campaigns of one workspace: when each is sent, and to how many sends it belongs."""
        per_day = self._random.choice((1, 1, 1, 2, 3))
        spread = self.scene.spread
        size = self.scene.sends_per_day / per_day * self._random.lognormvariate(-(spread**2) / 2, spread)  # mean 1
        for day in range(self.scene.days):
            for _ in range(per_day):
                sent_at = day * DAY_SECONDS + self._random.triangular(6, 22, 10) * HOUR_SECONDS
                yield sent_at, max(1, round(size * self._random.lognormvariate(-0.125, 0.5)))

    def _arrive(self, now: float, value: tuple[SimulatedWorkspace, float, int]) -> None:
        workspace, sent_at, size = value
        if now in self.scene.ledger_outage:  # the broker keeps the message
            self._push(self.scene.ledger_outage.end, self._arrive, value)
            return
        self.result.sends += size
        self.result.transactions[int(now // STEP_SECONDS)] += 1
        first = PLAN.first(sent_at, now)
        self._plan(workspace, first.name, first.due_at, sent_at, size, captured=False)

    def _plan(
        self, workspace: SimulatedWorkspace, name: str, due_at: float, sent_at: float, size: int, *, captured: bool
    ) -> None:
        self._count += 1
        workspace.add(Group(sent_at + RETENTION_SECONDS, self._count, sent_at, due_at, name, size, captured))
        self._wake(workspace, due_at)

    def _wake(self, workspace: SimulatedWorkspace, at: float) -> None:
        at = max(at, self._now)
        if at < workspace.next_at:
            workspace.next_at = at
            self._push(at, self._step, workspace)

    def _step(self, now: float, workspace: SimulatedWorkspace) -> None:
        """Send the requests of a workspace's due readings for up to a minute."""
        if now != workspace.next_at:  # it was woken earlier
            return
        workspace.next_at = math.inf
        workspace.make_due(now)
        if workspace.find_due() is None:
            self._wake_for_next(workspace)
            return
        if self._is_blocked(now, workspace):
            return
        owner, minute, period = self._server[workspace.name], int(now // STEP_SECONDS), int(now // CAPACITY_SECONDS)
        pace = workspace.find_pace(now)
        limits = {
            QUOTA: pace * STEP_SECONDS,
            REPLICA: self.scene.replica_rate * CAPACITY_SECONDS - self._used[owner, period],
            LEDGER: self.scene.ledger_rate * CAPACITY_SECONDS - self._used["ledger", period],
        }
        limit = min(limits, key=limits.__getitem__)
        done = self._take(now, workspace, int(limits[limit]), pace)
        seconds = max(done / pace, 1.0) if done else (period + 1) * CAPACITY_SECONDS - now
        if done:
            workspace.use(done, now, seconds)
            self._done[owner, minute] += done
            self._used[owner, period] += done
            self._used["ledger", period] += done
            self._claims[owner, minute] += math.ceil(done / min(2000, 5 * pace))
        if workspace.find_due() is None:
            workspace.waited.clear()
            self._wake_for_next(workspace)
        else:
            workspace.waited[limit] += seconds
            self._wake(workspace, now + seconds)

    def _wake_for_next(self, workspace: SimulatedWorkspace) -> None:
        if (due_at := workspace.find_next_due_at()) is not None:
            self._wake(workspace, due_at)

    def _is_blocked(self, now: float, workspace: SimulatedWorkspace) -> bool:
        """Return whether a workspace cannot be served; if so, it is looked at when that may change."""
        scene = self.scene
        if now in scene.ledger_outage:
            return self._wait(now, workspace, LEDGER_OUTAGE, scene.ledger_outage.end)
        if now not in scene.place_outage:
            self._sealed_bytes = 0.0
        elif self._sealed_bytes >= scene.max_sealed_bytes:
            return self._wait(now, workspace, PLACE_OUTAGE, scene.place_outage.end)
        if not self._alive.get(self._server[workspace.name]):
            self._stopped.append(workspace)
            return self._wait(now, workspace, NO_REPLICA, math.inf)
        return False

    def _wait(self, now: float, workspace: SimulatedWorkspace, limit: str, until: float) -> bool:
        if until < math.inf:
            self._wake(workspace, until)
        workspace.waited[limit] += min(until - now, DAY_SECONDS)
        return True

    def _take(self, now: float, workspace: SimulatedWorkspace, most: int, pace: float) -> int:
        """Request up to ``most`` readings in the order of claims; returns how many."""
        done = 0
        while (group := workspace.find_due()) is not None:
            if group.captured and now >= PLAN.expires_at(group.sent_at):
                self._record_late(workspace, group, group.size)
                workspace.remove_due()
                continue
            if done >= most:
                break
            size = min(group.size, most - done)
            done += size
            name = PLAN.first(group.sent_at, now).name  # one reading replaces all that are overdue
            self._record(workspace, group, name, size, now + done / pace)
            following = PLAN.after(name, group.sent_at, now)
            if following is not None:
                self._plan(workspace, following.name, following.due_at, group.sent_at, size, captured=True)
            group.size -= size
            if not group.size:
                workspace.remove_due()
        return done

    def _record(self, workspace: SimulatedWorkspace, group: Group, name: str, size: int, ended_at: float) -> None:
        result = self.result
        result.readings += size
        self._sealed_bytes += size * BYTES_OF_READING
        if ended_at in self.scene.place_outage:
            result.most_sealed_bytes = max(result.most_sealed_bytes, self._sealed_bytes)
        if name != FINAL:
            return
        result.longest_wait = max(result.longest_wait, ended_at - PLAN.readings[-1][1] - group.sent_at)
        if ended_at <= group.deadline:
            result.in_time += size
        else:
            self._record_late(workspace, group, size)

    def _record_late(self, workspace: SimulatedWorkspace, group: Group, size: int) -> None:
        result = self.result
        if not result.late:
            result.first_limit = workspace.waited.most_common(1)[0][0] if workspace.waited else QUOTA
        result.late += size
        warning = group.deadline - find_alert(group.at_risk_at, self._dark)
        result.alerted += size * (warning > 0)
        result.shortest_warning = min(result.shortest_warning, warning)

    def _kill(self, now: float, deaths: Deaths) -> None:
        """Kill replicas. Others notice it after their leases have ended, when they look for owners again."""
        living = [name for name, alive in self._alive.items() if alive]
        for victim in self._random.sample(living, min(deaths.replicas, len(living))):
            self._alive[victim] = False
            self._count += 1
            self._push(now + LEASE_SECONDS * 1.25, self._end_lease, victim)
            if deaths.restart_seconds < math.inf:
                self._push(now + deaths.restart_seconds, self._start, f"replica-{self._count}")
        if not any(self._alive.values()):
            self._dark.append(Outage(now, now + deaths.restart_seconds))

    def _end_lease(self, _: float, owner: str) -> None:
        del self._alive[owner]
        self._assign()

    def _start(self, _: float, owner: str) -> None:
        self._alive[owner] = True
        self._assign()

    def _assign(self) -> None:
        """Assign the workspaces to the owners whose leases have not ended."""
        for owner, names in list_assigned(self._names, tuple(self._alive)).items():
            for name in names:
                self.result.moved += self._server.get(name, owner) != owner
                self._server[name] = owner
        stopped, self._stopped = self._stopped, []
        for workspace in stopped:
            self._wake(workspace, self._now)

    def _count_transactions(self) -> None:
        """Count the transactions of claims and batches, and those that replicas make regularly."""
        counted = self.result.transactions
        for (owner, minute), done in self._done.items():
            seals = max(math.ceil(done / 1000), 1)
            counted[minute] += min(240, self._claims[owner, minute]) + 3 * seals
        each = STEP_SECONDS * self.scene.replicas * find_regular_rate(self.scene.workspaces)
        for minute in range(max(counted) + 1):
            if minute * STEP_SECONDS not in self.scene.ledger_outage:
                counted[minute] += round(each)


def find_regular_rate(workspaces: int) -> float:
    """Return the transactions per second that a replica makes even when nothing is due.

    It polls, renews its lease and reads what its monitor reports. Housekeeping makes three transactions for each page
    of workspaces.
    """
    return IDLE_RATE + 3 * math.ceil(workspaces / PAGE) / HOUSEKEEPING_SECONDS
