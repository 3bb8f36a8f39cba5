"""An engine with many workspaces in virtual time, of this version or of commit 1268f99, which had other names.

Virtual time has no CPU: a transaction of the ledger takes 5 ms of it, and one thread makes one after the other.
"""

import asyncio
import random
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harvester.errors import ExchangeError
from harvester.ledger import Ledger
from harvester.model import Pair
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock, VirtualLoop

try:
    from harvester.braze.quota import QuotaReport
    from harvester.braze.transport import Response
    from harvester.cli.startup import SWITCH_INTERVAL_SECONDS
    from harvester.engine.engine import Engine
    from harvester.model import SentPair
    from harvester.storage import Compression

    BEFORE = False
except ImportError:
    from harvester.braze.budget import BudgetReport as QuotaReport
    from harvester.sinks import Compression
    from harvester.wiring import Harvesting as Engine
    from harvester.wiring import plans_of

    from harvester.braze.transport import Answer as Response
    from harvester.ledger.intake import enqueue
    from harvester.ledger.plans import follow
    from harvester.model import Enqueued as SentPair

    BEFORE = True
    SWITCH_INTERVAL_SECONDS = sys.getswitchinterval()

START = VirtualClock().starts_at
LEDGER_SECONDS = 0.005
DAY_SECONDS = 86_400.0
SICK = ("slow", "slower", "halted", "late", "dead", "hanging")
LIMITS = {"slow": 3600, "slower": 360}
"""Requests an hour, where they differ from the default."""


class SlowLedgerLoop(VirtualLoop):
    """Virtual time in which the thread of a ledger takes time for each transaction."""

    def __init__(self) -> None:
        """Begin at second 0 with idle threads."""
        super().__init__()
        self._free_at: dict[int, float] = {}

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Run the work of a thread at once, and return its result when the thread would have it."""
        done, ended = super().run_in_executor(executor, func, *args), self.create_future()
        until = max(self.time(), self._free_at.get(id(executor), 0.0)) + LEDGER_SECONDS
        self._free_at[id(executor)] = until
        self.call_at(until, _copy_result, done, ended)
        return ended


def _copy_result(done: "asyncio.Future[Any]", to: "asyncio.Future[Any]") -> None:
    if to.cancelled():
        return
    if (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())


class Braze:
    """The transport of all workspaces. The name of a workspace begins with its behaviour."""

    def __init__(self) -> None:
        """Begin without requests."""
        self.first_at: dict[tuple[str, str], float] = {}
        self.answered: set[tuple[str, str]] = set()
        self.in_flight = 0
        self._requests: Counter[str] = Counter()
        self._random = random.Random(1)

    async def send_series(self, pair: Pair, **_: Any) -> Response:
        """Respond as the workspace does."""
        kind, began = pair.workspace.split("-")[0], asyncio.get_running_loop().time()
        self.first_at.setdefault((pair.workspace, pair.send_id), began)
        self._requests[pair.workspace] += 1
        hangs = kind == "hanging" and self._requests[pair.workspace] % 5 == 0
        self.in_flight += 1
        try:
            seconds = 30.0 if hangs else self._random.uniform(*((14.0, 42.0) if kind == "late" else (0.1, 0.3)))
            await asyncio.sleep(min(seconds, 30.0))
            if kind == "dead" or seconds >= 30.0:
                raise ExchangeError("timeout", "no response")
        finally:
            self.in_flight -= 1
        ended, limit = asyncio.get_running_loop().time(), LIMITS.get(kind, 250_000)
        report = QuotaReport(limit, max(0, limit - self._requests[pair.workspace]), START + 3600, START + int(ended))
        if kind == "halted":
            return Response(401, b"{}", QuotaReport(), ended - began)
        self.answered.add((pair.workspace, pair.send_id))
        return Response(200, b'{"message":"success","data":[]}', report, ended - began)

    def scrub(self, text: str) -> str:
        """Return the text."""
        return text

    async def close(self) -> None:
        """Nothing to close."""


class NoSink:
    """A place that accepts everything and keeps nothing."""

    place = "nowhere"

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Accept every ledger."""
        return known or ledger_id

    async def create(self, _part: object) -> None:
        """Accept the part."""


class Scene:
    """A running engine."""

    def __init__(self, engine: Any, ledger: Any, braze: Braze, path: Path) -> None:
        """Use what runs already."""
        self.braze = braze
        self.ledger = ledger
        self._engine, self._path = engine, path

    async def enqueue(self, sends: Sequence[SentPair], *, once: bool = True) -> None:
        """Enqueue sends as a message does."""
        await enqueue_all(self.ledger, sends, now=START + asyncio.get_running_loop().time(), once=once)
        if BEFORE:
            self._engine.look()
        else:
            self._engine.wake({each.pair.workspace for each in sends})

    def list_sealed(self) -> set[tuple[str, str]]:
        """Return the sends with a sealed outcome."""
        with sqlite3.connect(self._path) as connection:
            return set(connection.execute("SELECT workspace, send_id FROM outcome JOIN pair ON pair.id = pair_id"))


async def enqueue_all(ledger: Any, sends: Sequence[SentPair], *, now: float, once: bool = True) -> None:
    """Enqueue sends, by default for one reading that is due at once."""
    if BEFORE:
        await ledger.do(enqueue, sends, now=now, once=once)
    else:
        await ledger.intake.enqueue(sends, once=once)


def create_sends(workspace: str, count: int, *, age_days: float = 2.0, prefix: str = "s") -> list[SentPair]:
    """Return sends of a workspace."""
    return [SentPair(Pair(workspace, "c", f"{prefix}{at}"), START - age_days * DAY_SECONDS) for at in range(count)]


@asynccontextmanager
async def serve(names: Sequence[str], *pairs: SentPair) -> AsyncIterator[Scene]:
    """Serve workspaces, with pairs that are in the ledger before the start."""
    clock, braze = VirtualClock(), Braze()
    clock.monotonic()
    settings = Settings(
        workspaces={
            name: Workspace(endpoint="https://rest.fra-01.braze.eu", api_key="k" * 20 + name, reserve=0.0)
            for name in names
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        async with await Ledger.open(path, clock=clock) as ledger:
            engine = Engine(
                settings, ledger=ledger, sink=NoSink(), compression=Compression.NONE, connect=lambda *_: braze,
                **({"clock": clock, "lasting": True} if BEFORE else {"until_stopped": True}),
            )  # fmt: skip
            scene = Scene(engine, ledger, braze, path)
            for name, plan in (plans_of(settings) if BEFORE else {}).items():
                await ledger.do(follow, name, plan)
            if not BEFORE:
                await ledger.intake.set_plans(settings.get_plans())
            async with engine.opened():
                if pairs:
                    await scene.enqueue(pairs)
                task = asyncio.create_task(engine.run())
                yield scene
                engine.stop()
                task.cancel()
                await asyncio.wait([task])
