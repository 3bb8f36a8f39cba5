"""The places of a process: which one takes the rows of each workspace, and what waits to be stored there."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from harvester.clock import Clock
from harvester.condition import name_workspaces
from harvester.errors import PartConflict, SinkError, SinkRefused, UsageError
from harvester.formatting import quantity
from harvester.ledger import Ledger
from harvester.observability.traces import Span
from harvester.settings import Settings
from harvester.storage import Sink

ATTACH_SECONDS = 10.0
"""How long a start waits for each of several places. One that needs longer is attached later."""

log = structlog.get_logger()

OpenSink = Callable[[str], Sink]
"""Returns the sink for a place, without using it. Raises ``UsageError``."""


@dataclass(slots=True)
class Outage:
    """A place that is unavailable: why, since when in monotonic seconds, and the failed attempts."""

    problem: SinkError
    since: float
    failures: int = 0


@dataclass(slots=True, eq=False)
class Place:
    """One place. Nothing is captured for it before ``dataset_id``, the dataset that takes its parts, is known."""

    sink: Sink
    known_dataset_id: str | None
    """The dataset that was found there before."""
    dataset_id: str | None = None
    attached: bool = False
    """Whether this process has checked which dataset the place contains; a failure makes that uncertain again."""
    waiting: dict[str, tuple[int, Span]] = field(default_factory=dict)
    """The bytes and the span of each sealed batch that is not stored yet, the oldest first."""
    sealed_bytes: int = 0
    outage: Outage | None = None
    conflict: PartConflict | None = None
    """Why a batch was set aside."""
    given_up: bool = False
    task: asyncio.Task[None] | None = None
    """What uploads to it; None while there is nothing to do."""

    def record_failure(self, problem: SinkError, now: float) -> None:
        """Begin or continue an outage."""
        if self.outage is None:
            self.outage = Outage(problem, now)
        self.outage.problem = problem
        self.outage.failures += 1


class Places:
    """The places of the configured workspaces, and those that parts were sealed for before."""

    def __init__(self, ledger: Ledger, common: Sink, open_sink: OpenSink) -> None:
        """Use ``common`` for workspaces without a place of their own, and ``open_sink`` for all others."""
        self.destinations: dict[str, str] = {}
        """The dataset that takes the rows of each workspace.

        Requests in flight of a workspace whose new place is not attached yet, or that was removed, need the previous
        one.
        """
        self._ledger = ledger
        self._common = common
        self._open_sink = open_sink
        self._sinks: dict[str, Sink] = {}
        self._places: dict[str, Place] = {}
        self._by_dataset: dict[str, Place] = {}
        self._by_workspace: dict[str, Place] = {}

    @property
    def only(self) -> Place | None:
        """The place of all workspaces; None if they have several."""
        used = set(self._by_workspace.values())
        return used.pop() if len(used) == 1 else None

    def get(self, workspace: str) -> Place | None:
        """Return the place of a workspace; None if the workspace is not configured."""
        return self._by_workspace.get(workspace)

    def is_used(self, place: Place) -> bool:
        """Return whether it is the place of a workspace."""
        return place in self._by_workspace.values()

    def list_used(self) -> list[Place]:
        """List the places of workspaces, and those for which parts wait."""
        used = set(self._by_workspace.values())
        return [each for each in self._places.values() if each in used or each.waiting]

    def list_workspaces(self, place: Place) -> list[str]:
        """List the workspaces whose rows a place takes."""
        return [name for name, each in self._by_workspace.items() if each is place]

    async def apply(self, settings: Settings) -> None:
        """Give each workspace of these settings its place. Raises ``UsageError`` for a place that cannot be opened."""
        sinks = {name: await self._find_sink(name, workspace.out) for name, workspace in settings.workspaces.items()}
        known = {place: dataset_id for dataset_id, place in (await self._ledger.reports.list_places()).items()}
        for sink in sinks.values():
            self._places.setdefault(sink.place, Place(sink, known.get(sink.place)))
        self._by_workspace = {name: self._places[sink.place] for name, sink in sinks.items()}
        for name, place in self._by_workspace.items():
            if place.dataset_id is not None:
                self.destinations[name] = place.dataset_id

    async def _find_sink(self, workspace: str, out: str | None) -> Sink:
        if out is None:
            return self._common
        if out not in self._sinks:
            try:
                self._sinks[out] = await asyncio.to_thread(self._open_sink, out)  # a client of a bucket takes 10 ms
            except UsageError as error:
                raise UsageError(f"workspaces.{workspace}.out: {error}") from None
        return self._sinks[out]

    def find(self, dataset_id: str) -> Place | None:
        """Return the place that takes the parts of a dataset; None if there is none."""
        return self._by_dataset.get(dataset_id)

    async def reopen(self, dataset_id: str) -> Place | None:
        """Open the place where the ledger found a dataset before; None if it is unknown or cannot be opened."""
        name = (await self._ledger.reports.list_places()).get(dataset_id)
        if name is None or name == "-":  # rows for a pipe must not go to another one
            return None
        try:
            place = self._places.get(name) or Place(self._open_sink(name), dataset_id)
        except UsageError:  # such as a bucket whose account is not set any more
            return None
        self._places[name] = place
        self._use(place, dataset_id)
        return place

    async def attach_all(self, clock: Clock) -> None:
        """Attach the places of all workspaces. One that is unavailable is attached later.

        Raises ``SinkRefused`` for a place that must not be used, and ``SinkError`` if the only place was never reached.
        """
        only = self.only
        failures = await asyncio.gather(*(self._attach_in_time(each, clock) for each in self.list_used()))
        refused = [each for each in failures if isinstance(each, SinkRefused)]
        if refused:
            raise SinkRefused("\n".join(map(str, refused)))
        if only is not None and only.dataset_id is None and only.outage is not None:
            raise only.outage.problem

    async def _attach_in_time(self, place: Place, clock: Clock) -> SinkError | None:
        """Attach a place; returns why that failed."""
        try:
            async with asyncio.timeout(None if place is self.only else ATTACH_SECONDS):
                await self.attach(place)
        except TimeoutError:
            self._use_known_dataset(place)
            text = f"{place.sink.place} has not responded for {ATTACH_SECONDS:.0f} seconds"
            place.record_failure(SinkError(text, cause="timeout"), clock.monotonic())
        except SinkRefused as error:
            return self.describe(place, error)
        except SinkError as error:
            place.record_failure(error, clock.monotonic())
        return None

    async def attach(self, place: Place) -> None:
        """Find or mark the dataset of a place. Raises ``SinkError``; parts for a known place can wait then.

        An empty place keeps the dataset that is known, so that what is sealed for it is stored; a warning says what is
        missing.
        """
        try:
            emptied = await _is_emptied(place)
            found = await place.sink.attach(self._ledger.ledger_id, known=place.known_dataset_id)
        except SinkRefused:
            raise
        except SinkError:
            self._use_known_dataset(place)
            raise
        if place.dataset_id not in (None, found):
            message = "contains a different dataset than before; restore the previous one, or choose another place"
            raise SinkRefused(f"{place.sink.place} {message}")
        await self._ledger.upkeep.save_dataset(place.sink.place, found)
        place.attached, place.known_dataset_id = True, found
        self._use(place, found)
        if emptied and (count := await self._ledger.reports.count_stored_parts(found)):
            stored = quantity(count, "part")
            hint = f"mount or restore {place.sink.place}: it contains no part, but the ledger has stored {stored} there"
            log.warning("place_emptied", place=place.sink.place, parts=count, hint=hint)

    def _use_known_dataset(self, place: Place) -> None:
        """Capture for a known place although it is unavailable: it is checked before the first upload."""
        if place.known_dataset_id is not None:
            self._use(place, place.known_dataset_id)

    def _use(self, place: Place, dataset_id: str) -> None:
        place.dataset_id = dataset_id
        self._by_dataset.setdefault(dataset_id, place)
        self.destinations |= dict.fromkeys(self.list_workspaces(place), dataset_id)

    def describe(self, place: Place, problem: SinkError) -> SinkError:
        """Return a problem of a place, with the workspaces that it concerns if there are several places."""
        names = self.list_workspaces(place)
        if self.only is not None or not names:
            return problem
        return type(problem)(f"{problem} (the place of {name_workspaces(names)})", cause=problem.cause)


async def _is_emptied(place: Place) -> bool:
    """Return whether a known place has neither a marker nor a part; a pipe never has. Raises ``SinkError``."""
    return place.known_dataset_id is not None and place.sink.place != "-" and await place.sink.find_ledger_id() is None
