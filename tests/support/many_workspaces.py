"""An engine with many workspaces in virtual time, and a transport for all of them that records each request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from harvester.braze.quota import QuotaReport
from harvester.braze.transport import Response
from harvester.clock import Clock
from harvester.engine.engine import Engine
from harvester.engine.periodic_work import AfterHousekeeping
from harvester.errors import SinkError
from harvester.ledger import Ledger
from harvester.model import DAY_SECONDS, Pair, Part, SentPair
from harvester.place import LedgerLocation
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock
from harvester.storage import Compression

ENDPOINT = "https://rest.fra-01.braze.eu"
START = VirtualClock().starts_at
EMPTY = orjson.dumps({"message": "success", "data": []})
FORTY_DAYS = orjson.dumps({"message": "success", "data": [{"time": "2026-01-01"}] * 40})
"""A response that becomes 41 rows, for tests that need many bytes of few requests."""
LATENCY_SECONDS = 0.2


class RecordingSink:
    """A place that keeps the rows of each part in memory, with the time of its creation.

    It is unavailable while ``problem`` says so, and hangs while ``hanging`` is set.
    """

    def __init__(self, clock: Clock, place: str = "memory") -> None:
        """Start without parts."""
        self.parts: list[tuple[float, list[dict]]] = []
        self.place = place
        self.problem: SinkError | None = None
        self.hanging = False
        self._clock = clock
        self._owner: str | None = None

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Accept every ledger."""
        await self._fail()
        self._owner = ledger_id
        return known or f"{ledger_id} in {self.place}"

    async def find_ledger_id(self) -> str | None:
        """Return the ledger that was attached."""
        await self._fail()
        return self._owner

    async def _fail(self) -> None:
        while self.hanging:
            await asyncio.sleep(1)
        if self.problem is not None:
            raise self.problem

    async def create(self, part: Part) -> None:
        """Keep the rows."""
        await self._fail()
        self.parts.append((self._clock.monotonic(), [orjson.loads(line) for line in part.data.splitlines()]))

    def stored_at(self) -> dict[tuple[str, str], float]:
        """Return when each send of each workspace was stored."""
        return {(row["workspace"], row["send_id"]): at for at, rows in self.parts for row in rows}


Behaviour = Callable[[int], float | int]
"""What a workspace does with its request of a number: a latency in seconds (``float``), or a status (``int``)."""


@dataclass(slots=True)
class Braze:
    """The transport of every workspace. ``requests`` are workspace, send and time."""

    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    body: bytes = EMPTY
    requests: list[tuple[str, str, float]] = field(default_factory=list)
    most_in_flight: int = 0
    in_flight: int = 0
    opened: int = 0

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Respond as the workspace's behaviour says."""
        now = asyncio.get_running_loop().time()
        self.requests.append((pair.workspace, pair.send_id, now))
        number = sum(name == pair.workspace for name, _, _ in self.requests) if pair.workspace in self.behaviours else 0
        does = self.behaviours.get(pair.workspace, lambda _: LATENCY_SECONDS)(number)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(does if isinstance(does, float) else LATENCY_SECONDS)
        finally:
            self.in_flight -= 1
        status = does if isinstance(does, int) else 200
        ended = START + asyncio.get_running_loop().time()
        report = QuotaReport(250_000, 249_000, START + 3600, float(int(ended)))
        return Response(status, self.body if status == 200 else b"{}", report, ended - START - now)

    def scrub(self, text: str) -> str:
        """Return the text."""
        return text

    def use_key(self, _api_key: str) -> None:
        """Accept any key."""

    async def close(self) -> None:
        """Nothing to close."""
        self.opened -= 1

    def first_requests(self) -> dict[str, float]:
        """Return when each workspace sent its first request."""
        first: dict[str, float] = {}
        for name, _, at in self.requests:
            first.setdefault(name, at)
        return first


@dataclass(slots=True)
class Scene:
    """A running engine."""

    engine: Engine
    ledger: Ledger
    braze: Braze
    sink: RecordingSink
    sinks: dict[str, RecordingSink]
    """The places of workspaces that have their own; the test may add some, or change them."""
    task: asyncio.Task[None]

    async def enqueue(self, *lists: list[SentPair]) -> None:
        """Enqueue sends as a message does."""
        pairs = [each for listed in lists for each in listed]
        await self.ledger.intake.enqueue(pairs)
        self.engine.wake({each.pair.workspace for each in pairs})

    async def wait_until_pending(self, count: int) -> None:
        """Wait until at most this number of pairs is pending."""
        while (await self.ledger.reports.get_books()).pending > count:
            await asyncio.sleep(0.25)


def sends(workspace: str, count: int, *, age_days: float = 2.0, prefix: str = "s") -> list[SentPair]:
    """Return sends of an age: an older one has a nearer deadline."""
    sent_at = START - age_days * DAY_SECONDS
    return [SentPair(Pair(workspace, "c", f"{prefix}{number}"), sent_at) for number in range(count)]


@asynccontextmanager
async def create_engine(
    folder: Path, names: Iterable[str], *, until_stopped: bool = True,
    behaviours: Mapping[str, Behaviour] | None = None,
    places: Mapping[str, str] | None = None, unavailable: Mapping[str, SinkError] | None = None,
    location: LedgerLocation | None = None, after_housekeeping: AfterHousekeeping | None = None,
    max_rate: float = 1000.0, **settings: object,
) -> AsyncIterator[tuple[Engine, Ledger, Braze, RecordingSink, dict[str, RecordingSink]]]:  # fmt: skip
    """Open an engine for workspaces whose sends have one reading, due at once.

    ``places`` are those of workspaces that have their own; the ``unavailable`` ones fail from the start. The ledger is
    in ``folder``, or at its ``location``.
    """
    clock, places = VirtualClock(), places or {}
    clock.monotonic()
    workspaces = {
        name: Workspace(
            endpoint=ENDPOINT, api_key="k" * 20 + name, ages_days=(0.01,), out=places.get(name), max_rate=max_rate
        )
        for name in names
    }
    braze, sink = Braze(behaviours or {}), RecordingSink(clock)
    sinks = {place: RecordingSink(clock, place) for place in places.values()}
    for place, problem in (unavailable or {}).items():
        sinks[place].problem = problem

    def connect(*_: object) -> Braze:
        braze.opened += 1
        return braze

    async with await Ledger.open(location or folder / "ledger.db", clock=clock) as ledger:
        engine = Engine(
            Settings(workspaces=workspaces, **settings), ledger=ledger, sink=sink, compression=Compression.NONE,
            until_stopped=until_stopped, connect=connect, open_sink=sinks.__getitem__,
            after_housekeeping=after_housekeeping,
        )  # fmt: skip
        await ledger.intake.set_plans(Settings(workspaces=workspaces).get_plans())
        async with engine.opened():
            yield engine, ledger, braze, sink, sinks


@asynccontextmanager
async def serve(folder: Path, names: Iterable[str], **more: object) -> AsyncIterator[Scene]:
    """Serve the workspaces of ``create_engine`` until the body ends."""
    async with create_engine(folder, names, **more) as (engine, ledger, braze, sink, sinks):
        scene = Scene(engine, ledger, braze, sink, sinks, asyncio.create_task(engine.run()))
        try:
            yield scene
        finally:
            engine.stop()
            await scene.task
