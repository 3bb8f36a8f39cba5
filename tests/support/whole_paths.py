"""Whole paths of input in one process; only the outermost seams are fakes.

Messages of a queue to the ledger and the dead letters; a list to the ledger and the rejects; responses on a socket to
parts and the latest view; requests on a socket to the page. Each path asserts its invariants.
"""

import asyncio
import io
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from harvester.braze.client import Client
from harvester.braze.pacer import Pacer
from harvester.braze.transport import BrazeTransport, Response
from harvester.clock import BrazeClock, SystemClock
from harvester.datasets import write_latest
from harvester.engine.batch_in_progress import BatchInProgress
from harvester.errors import ExchangeError, UsageError
from harvester.ledger import EnqueueResult, Ledger
from harvester.model import Batch, Captured, Deferred, Outcome, Pair, Reading, Rejected, Released, SentPair
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.sources import Input, RejectsFile
from harvester.sources.brokers import Delivery
from harvester.sources.messages.message import MessageParser
from harvester.sources.messages.trigger import Trigger
from harvester.storage import Compression, FolderSink
from harvester.web import WebServer
from tests.support import snapshots
from tests.support.faulty_server import read_request, serve_script
from tests.support.hostile_http import KEY

NOW = VirtualClock().starts_at
GOOD_PAIR = Pair("eu", "good", "behind")
GOOD_MESSAGE = b'{"version": 1, "campaign_id": "good", "send_id": "behind"}'
SILENCE_SECONDS = 0.05
"""For so long a request that may be no whole one is waited for."""

ENDPOINT = "https://rest.fra-01.braze.eu"


class Queue:
    """A broker that delivers bodies, and keeps their results; it calls ``at_end`` when it is empty."""

    lease_seconds = None

    def __init__(self, bodies: Sequence[bytes], *, together: int) -> None:
        """Deliver this number of messages at a time."""
        self.waiting = [Delivery(body, 1, number) for number, body in enumerate(bodies)]
        self.acknowledged: list[int] = []
        self.dead: list[tuple[int, bytes, str]] = []
        self.at_end = lambda: None
        self._together = together

    async def open(self) -> list[str]:
        """Connect."""
        return []

    async def receive(self) -> Sequence[Delivery]:
        """Deliver."""
        taken, self.waiting = self.waiting[: self._together], self.waiting[self._together :]
        if not taken:
            self.at_end()
            await asyncio.sleep(1)
        return taken

    async def is_empty(self) -> bool:
        """Return whether everything is delivered."""
        return not self.waiting

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: these messages have no lease."""

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Keep a dead letter; brokers require a reason of printable ASCII."""
        assert reason.isascii()
        assert reason.isprintable()
        assert reason.strip()
        self.dead.append((delivery.handle, body, reason))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget messages."""
        self.acknowledged += [each.handle for each in deliveries]

    async def close(self) -> None:
        """Disconnect."""


def deliver(ledger: Ledger, bodies: Sequence[bytes], *, together: int) -> set[Pair]:
    """Deliver messages, and a valid one behind them; return the pairs in the ledger.

    Each message is acknowledged, and is a dead letter unless everything in it reached the ledger.
    """
    queue, arrived = Queue([*bodies, GOOD_MESSAGE], together=together), set()

    async def add(arrivals: Sequence[SentPair], *, once: bool) -> EnqueueResult:
        arrived.update(each.pair for each in arrivals)
        return await ledger.intake.enqueue(arrivals, once=once)

    async def story() -> Trigger:
        clock = VirtualClock()
        clock.monotonic()  # it has seen its loop before it is asked where a thread would be
        trigger = Trigger(
            "sends", queue, parser=MessageParser(("eu",), ("s3://lists",)), enqueue=add, clock=BrazeClock(clock),
            jitter=random.Random(1),
        )  # fmt: skip
        queue.at_end = trigger.stop
        await trigger.run()
        return trigger

    trigger = run_virtual(story())
    assert sorted(queue.acknowledged) == list(range(len(bodies) + 1)), trigger.problem
    assert trigger.outcomes.total() == len(bodies) + 1
    assert len(queue.dead) == trigger.outcomes["dead_lettered"] + trigger.outcomes["partly_enqueued"]
    for handle, body, _ in queue.dead:
        assert handle < len(bodies)
        assert body == bodies[handle] or isinstance(orjson.loads(body), dict)
    assert GOOD_PAIR in arrived
    return arrived


def read_list(ledger: Ledger, name: str, data: bytes) -> tuple[set[Pair], list[dict], str]:
    """Read a list: its pairs are in the ledger and its bad lines in the rejects, or the list is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        rejects, refused, pairs = RejectsFile(Path(folder) / "rejects.ndjson"), "", set()
        try:
            source = Input([str(path)], workspaces=["eu"], stdin=io.BytesIO(), now=NOW)
            for page in source.read_pages(rejects):
                pairs.update(each.pair for each in page)
                run_virtual(ledger.intake.enqueue(page, once=True))
        except UsageError as error:
            refused = str(error)
        lines = rejects.path.read_bytes().splitlines() if rejects.count else []
        rejects_lines = [orjson.loads(line) for line in lines]
    assert sum(each.get("lines", 1) for each in rejects_lines) == rejects.count
    assert all(each["problem"] for each in rejects_lines)
    return pairs, rejects_lines, refused


async def request_all(raw_answers: Sequence[bytes]) -> tuple[list[Response | ExchangeError], Callable[[str], str]]:
    """Send responses through real sockets, each on its own connection.

    Returns the outcomes, and the function that removes the key from a text.
    """
    replies = iter(raw_answers)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server) -> None:
        await read_request(reader, server)
        writer.write(next(replies))
        await writer.drain()

    found: list[Response | ExchangeError] = []
    async with serve_script(script) as server:
        transport = BrazeTransport(
            endpoint=server.url, api_key=KEY, connections=1, clock=SystemClock(), timeout_seconds=5
        )  # fmt: skip
        for number in range(len(raw_answers)):
            try:
                pair = Pair("eu", "c", f"s{number}")
                found.append(await transport.send_series(pair, length_days=15, ending_at=NOW))
            except ExchangeError as error:
                found.append(error)
        await transport.close()
    return found, transport.scrub


class Replay:
    """A transport that repeats one response; it scrubs as the real one does."""

    def __init__(self, answer: Response | ExchangeError, scrub) -> None:
        """Return this response to each request."""
        self._answer = answer
        self.scrub = scrub

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Answer."""
        await asyncio.sleep(0.05)
        if isinstance(self._answer, ExchangeError):
            raise self._answer
        return self._answer


def harvest(folder: Path, found: Sequence[Response | ExchangeError], scrub) -> list[Outcome]:
    """Turn responses into outcomes and a stored part; return the outcomes."""
    readings = tuple(Reading(n, Pair("eu", "c", f"s{n}"), "once", NOW, 1e12, NOW) for n in range(len(found)))

    async def story() -> list[Outcome]:
        clock = VirtualClock()
        batch = BatchInProgress(Batch.open(NOW), Compression.ZSTD, "d")
        for reading, answer in zip(readings, found, strict=True):
            pacer = Pacer(reserve=0.2, max_rate=1000.0, clock=clock, jitter=random.Random(1))
            client = Client(
                transport=Replay(answer, scrub), endpoint=ENDPOINT, pacer=pacer, clock=clock
            )  # fmt: skip
            outcome = await client.capture(reading, get_batch_id=lambda: "b")
            assert KEY[:14] not in f"{client.endpoint.halt}{client.endpoint.describe_hold('overloaded')}"
            await batch.add_outcome(reading, outcome, now=0.0)
        (folder / ".harvester" / "tmp").mkdir(parents=True)  # as attaching to the folder would
        for part in await batch.finish():
            await FolderSink(folder).create(part)
        return [each.outcome for each in batch.outcomes]

    return run_virtual(story())


def check_outcomes(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Every capture is in the latest view; every refusal has a printable reason."""
    captured = {f"s{number}" for number, each in enumerate(outcomes) if isinstance(each, Captured)}
    for each in outcomes:
        assert isinstance(each, Captured | Rejected | Deferred | Released)
        assert not isinstance(each, Deferred) or each.cause != "bug"
        assert not isinstance(each, Rejected) or each.detail.isprintable()
    if not captured:
        return
    for kind in ("ndjson", "csv"):
        out = folder / f"latest.{kind}"
        write_latest(folder, out, kind, memory_limit_mb=128, temp_directory=folder)
    rows = [orjson.loads(line) for line in (folder / "latest.ndjson").read_bytes().splitlines()]
    assert {row["send_id"] for row in rows if row["level"] == "capture"} == captured


async def request_pages(requests: Sequence[bytes]) -> list[bytes]:
    """Send requests to the page, each on its own connection, and a valid one behind them; return the responses."""

    async def take_snapshot():
        return snapshots.healthy()

    async def send(data: bytes, patience_seconds: float | None = None) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        try:
            async with asyncio.timeout(patience_seconds):
                return await reader.read(1 << 20)
        except (ConnectionError, TimeoutError):  # the latter where a request is no whole one
            return b""
        finally:
            writer.close()

    async with WebServer(take_snapshot=take_snapshot, clock=SystemClock(), port=0) as server:
        port = int(server.url.rpartition(":")[2])
        answers = await asyncio.gather(*(send(data, SILENCE_SECONDS) for data in requests))
        good = await send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert good.startswith(b"HTTP/1.1 200")
    return answers
