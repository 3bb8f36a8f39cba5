"""Thousands of workspaces on several replicas for thirty days, in virtual time, with deaths and long outages.

The plan of readings, the assignment of workspaces and the pace of requests are harvester's own code. Requests, ledger
and place are counted, not made: a step is up to a minute of one workspace's readings at its pace. Replicas are killed
three times a day and start again a minute later; the requests that a kill repeats are not counted. The ledger is
unavailable for six hours of day 10, the place for all of day 20. Most workspaces have one small campaign a day, and a
few have thousands of sends.

``final in time`` is the share of sends whose final capture was requested before Braze deletes it. ``alerted`` is the
share of the others that were at risk, which the page and the metrics show, before that. ``transactions`` are those of
the ledger, by the rules of the engine: a claim at most every 250 ms, a seal every 1,000 readings or ten seconds.
"""

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from harvester.braze.quota import Quota, QuotaReport
from harvester.engine.assignment import find_owner
from harvester.model import DAY_SECONDS, RETENTION_SECONDS
from harvester.schedule import FINAL, MARGIN_SECONDS, ReadingPlan
from harvester.settings.workspace import AGES_DAYS

STEP_SECONDS = 60.0
HOUR_SECONDS = 3600.0
LIMIT, RESERVE = 250_000, 0.2
LATENCY_SECONDS = 0.15
BYTES_OF_READING = 600
"""Sealed bytes of a reading with the default compression: 1.8 MB for 3,000 pairs in the demo."""

LEASE_SECONDS = 60.0
DEATHS_PER_DAY = 3
LEDGER_DOWN = (10 * DAY_SECONDS, 10 * DAY_SECONDS + 6 * HOUR_SECONDS)
PLACE_DOWN = (20 * DAY_SECONDS, 21 * DAY_SECONDS)


@dataclass(frozen=True, slots=True)
class Scene:
    """The sizes of a simulation. ``ledger_rate`` and ``replica_rate`` are pairs per second."""

    workspaces: int = 10_000
    replicas: int = 20
    days: int = 30
    sends_per_day: float = 100.0
    ledger_rate: float = 7000.0
    replica_rate: float = 1000.0
    max_sealed_bytes: float = 1 << 30


@dataclass(slots=True)
class Result:
    """The counts of a simulation."""

    sends: int = 0
    in_time: int = 0
    late: int = 0
    alerted: int = 0
    readings: int = 0
    transactions: Counter[int] = field(default_factory=Counter)
    longest_wait: float = 0.0
    most_sealed_bytes: float = 0.0
    moved: int = 0


@dataclass(order=True, slots=True)
class Group:
    """Sends of one campaign whose reading is due at the same time."""

    deadline: float
    due_at: float
    number: int
    size: int
    name: str = field(compare=False)
    sent_at: float = field(compare=False)


class WorkspaceQueue:
    """The readings of one workspace that are not requested yet, its quota, and when it is looked at next."""

    def __init__(self, name: str, live_share: float) -> None:
        """``live_share`` of the quota is used by live sending, evenly."""
        self.name = name
        self.waiting: list[tuple[float, int, Group]] = []
        self.due: list[Group] = []
        self.next_at = math.inf
        self._live_share = live_share
        self._quota = Quota(RESERVE)
        self._hour = -1
        self._used = 0

    def add(self, group: Group) -> None:
        """Add readings that fall due later."""
        heapq.heappush(self.waiting, (group.due_at, group.number, group))

    def make_due(self, now: float) -> None:
        """Move the readings that have fallen due to the queue of those that may be requested."""
        while self.waiting and self.waiting[0][0] <= now:
            heapq.heappush(self.due, heapq.heappop(self.waiting)[2])

    def find_pace(self, now: float) -> float:
        """Return the requests per second that the quota allows, after the report of one response."""
        hour = int(now // HOUR_SECONDS)
        if hour != self._hour:
            self._hour, self._used = hour, 0
        live = self._live_share * LIMIT * (now % HOUR_SECONDS) / HOUR_SECONDS
        left = max(0, round(LIMIT - live - self._used))
        self._quota.observe(QuotaReport(LIMIT, left, (hour + 1) * HOUR_SECONDS, math.floor(now)), now)
        return self._quota.pace(now, in_flight=0, latency_seconds=LATENCY_SECONDS)

    def use(self, requests: int) -> None:
        """Count requests."""
        self._used += requests


class Simulation:
    """Replicas in virtual time, from second 0."""

    def __init__(self, scene: Scene, seed: int = 7) -> None:
        """Create the workspaces, with all their sends, and the replicas."""
        self.scene, self.result = scene, Result()
        self._random = random.Random(seed)
        self._plan = ReadingPlan(AGES_DAYS)
        self._events: list[tuple[float, int, str, Any]] = []
        self._count = 0
        self._now = 0.0
        self._queues = [WorkspaceQueue(f"w{at}", self._random.uniform(0, 0.5)) for at in range(scene.workspaces)]
        self._owners = {f"replica-{at}": True for at in range(scene.replicas)}
        self._server: dict[str, str] = {}
        self._used: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._claims: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._sealed_bytes = 0.0

    def run(self) -> Result:
        """Run to the end of the last send's retention."""
        self._assign()
        for queue in self._queues:
            for sent_at, size in self._draw_campaigns():
                self._push(sent_at, "arrive", (queue, sent_at, size))
        for _ in range(DEATHS_PER_DAY * self.scene.days):
            self._push(self._random.uniform(0, self.scene.days * DAY_SECONDS), "kill", None)
        while self._events:
            self._now, _, kind, value = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(self._now, value)
        self._count_transactions()
        return self.result

    def _push(self, at: float, kind: str, value: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, kind, value))

    def _draw_campaigns(self) -> Iterator[tuple[float, int]]:
        """Draw the campaigns of one workspace: when each is sent, and to how many sends it belongs."""
        per_day = self._random.choice((1, 1, 1, 2, 3))
        size = self.scene.sends_per_day / 1.6 * self._random.lognormvariate(-0.98, 1.4)  # the mean is 1
        for day in range(self.scene.days):
            for _ in range(per_day):
                sent_at = day * DAY_SECONDS + self._random.triangular(6, 22, 10) * HOUR_SECONDS
                yield sent_at, max(1, round(size * self._random.lognormvariate(-0.125, 0.5)))

    def _arrive(self, now: float, value: tuple[WorkspaceQueue, float, int]) -> None:
        queue, sent_at, size = value
        if LEDGER_DOWN[0] <= now < LEDGER_DOWN[1]:  # the broker keeps the message
            self._push(LEDGER_DOWN[1], "arrive", value)
            return
        self.result.sends += size
        self.result.transactions[int(now // STEP_SECONDS)] += 1
        first = self._plan.first(sent_at, now)
        self._plan_group(queue, first.name, first.due_at, sent_at, size)

    def _plan_group(self, queue: WorkspaceQueue, name: str, due_at: float, sent_at: float, size: int) -> None:
        self._count += 1
        queue.add(Group(sent_at + RETENTION_SECONDS, due_at, self._count, size, name, sent_at))
        self._wake(queue, due_at)

    def _wake(self, queue: WorkspaceQueue, at: float) -> None:
        at = max(at, self._now)
        if at < queue.next_at:
            queue.next_at = at
            self._push(at, "step", queue)

    def _step(self, now: float, queue: WorkspaceQueue) -> None:
        """Send the requests of a workspace's due readings for up to a minute."""
        if now < queue.next_at:
            return
        queue.next_at = math.inf
        queue.make_due(now)
        if not queue.due:
            self._wake_for_waiting(queue)
            return
        blocked_until = self._find_block(now, queue)
        if blocked_until is not None:
            self._wake(queue, blocked_until)
            return
        owner, minute = self._server[queue.name], int(now // STEP_SECONDS)
        pace = queue.find_pace(now)
        allowed = min(
            pace * STEP_SECONDS,
            self.scene.replica_rate * STEP_SECONDS - self._used[owner, minute],
            self.scene.ledger_rate * STEP_SECONDS - self._used["ledger", minute],
        )
        done = self._take(now, queue, int(allowed), pace)
        if done:
            queue.use(done)
            self._used[owner, minute] += done
            self._used["ledger", minute] += done
            self._claims[owner, minute] += math.ceil(done / min(2000, 5 * pace))
        if queue.due:
            # Above the limits of ledger and replica, a workspace waits some minutes, to save steps of the simulation.
            self._wake(queue, now + max(done / pace, 1.0) if done else (minute + 5) * STEP_SECONDS)
        else:
            self._wake_for_waiting(queue)

    def _wake_for_waiting(self, queue: WorkspaceQueue) -> None:
        if queue.waiting:
            self._wake(queue, queue.waiting[0][0])

    def _find_block(self, now: float, queue: WorkspaceQueue) -> float | None:
        """Return until when a workspace cannot be served; None if it can."""
        if LEDGER_DOWN[0] <= now < LEDGER_DOWN[1]:
            return LEDGER_DOWN[1]
        if not PLACE_DOWN[0] <= now < PLACE_DOWN[1]:
            self._sealed_bytes = 0.0
        elif self._sealed_bytes >= self.scene.max_sealed_bytes:
            return PLACE_DOWN[1]
        return None if self._owners.get(self._server[queue.name]) else now + LEASE_SECONDS / 4

    def _take(self, now: float, queue: WorkspaceQueue, most: int, pace: float) -> int:
        """Request up to ``most`` readings, nearest deadline first; returns how many."""
        done = 0
        while queue.due and done < most:
            group = queue.due[0]
            size = min(group.size, most - done)
            done += size
            ended_at = now + done / pace
            self._record(group, size, ended_at)
            following = self._plan.after(group.name, group.sent_at, now)
            if following is not None:
                self._plan_group(queue, following.name, following.due_at, group.sent_at, size)
            group.size -= size
            if not group.size:
                heapq.heappop(queue.due)
        return done

    def _record(self, group: Group, size: int, ended_at: float) -> None:
        result = self.result
        result.readings += size
        self._sealed_bytes += size * BYTES_OF_READING
        if PLACE_DOWN[0] <= ended_at < PLACE_DOWN[1]:
            result.most_sealed_bytes = max(result.most_sealed_bytes, self._sealed_bytes)
        if group.name != FINAL:
            return
        result.longest_wait = max(result.longest_wait, ended_at - group.due_at)
        if ended_at <= group.deadline:
            result.in_time += size
        else:
            result.late += size
            # At risk since the planning deadline; the page and the metrics need the ledger to show it.
            at_risk_at = group.deadline - MARGIN_SECONDS
            result.alerted += size * (at_risk_at < LEDGER_DOWN[0] or group.deadline > LEDGER_DOWN[1])

    def _kill(self, now: float, _: object) -> None:
        """Kill a replica. It stays an owner until its lease ends, and another one starts a minute later."""
        victim = self._random.choice([name for name, alive in self._owners.items() if alive])
        self._owners[victim] = False
        self._push(now + LEASE_SECONDS, "end_lease", victim)
        self._push(now + STEP_SECONDS, "start", f"replica-{self._count}")

    def _end_lease(self, _: float, owner: str) -> None:
        del self._owners[owner]
        self._assign()

    def _start(self, _: float, owner: str) -> None:
        self._owners[owner] = True
        self._assign()

    def _assign(self) -> None:
        """Assign the workspaces to the owners that have not ended."""
        before, names = self._server, [queue.name for queue in self._queues]
        self._server = {name: find_owner(name, self._owners) for name in names}
        self.result.moved += sum(before.get(name, owner) != owner for name, owner in self._server.items())

    def _count_transactions(self) -> None:
        for (owner, minute), done in self._used.items():
            if owner != "ledger":
                seals = max(math.ceil(done / 1000), 1)
                self.result.transactions[minute] += min(240, self._claims[owner, minute]) + 2 * seals


_SMALL = Scene(workspaces=2000, replicas=4, max_sealed_bytes=16 << 30)
SCENES: dict[str, Scene] = {
    "10,000 workspaces, 20 replicas": Scene(max_sealed_bytes=16 << 30),
    "2,000 workspaces, 4 replicas": _SMALL,
    "the same, max_sealed_bytes 0.1 GiB": replace(_SMALL, max_sealed_bytes=0.1 * 2**30),
}
QUICK = Scene(workspaces=200, replicas=4, max_sealed_bytes=16 << 20)


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each scene."""
    for name, scene in ({"200 workspaces, 4 replicas": QUICK} if quick else SCENES).items():
        result = Simulation(scene).run()
        yield "replica_simulation", {"scene": name} | describe(result)


def describe(result: Result) -> dict[str, float]:
    """Return the figures of one simulation."""
    finals = result.in_time + result.late
    per_minute = sorted(result.transactions.values())
    return {
        "sends": result.sends,
        "readings per second": result.readings / (len(result.transactions) * STEP_SECONDS),
        "final in time, %": 100 * result.in_time / finals,
        "late": result.late,
        "alerted, % of late": 100 * result.alerted / result.late if result.late else 100.0,
        "longest wait of a final reading, h": result.longest_wait / HOUR_SECONDS,
        "transactions per second": sum(per_minute) / len(per_minute) / STEP_SECONDS,
        "busiest minute": per_minute[-1] / STEP_SECONDS,
        "sealed during the outage, GiB": result.most_sealed_bytes / 2**30,
        "workspaces moved": result.moved,
    }
