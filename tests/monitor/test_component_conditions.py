"""Conditions of the components that all workspaces share: key files, store, broker and ledger."""

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from contextlib import asynccontextmanager

import pytest
import structlog
from pydantic import SecretStr

from harvester.condition import Component
from harvester.engine.engine import Engine
from harvester.errors import BrokerError, LedgerError, SinkError
from harvester.ledger import Ledger, availability
from harvester.model import Pair, SentPair
from harvester.monitor.conditions import Conditions
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock
from harvester.sources.messages.message import MessageParser
from harvester.sources.messages.trigger import Trigger
from harvester.storage import Compression, FolderSink
from tests.support.observed_service import AT, Seen, Wire, served
from tests.support.secret_canary import KEY


class Shelf(FolderSink):
    """A folder on a disk that is full while ``problem`` says so."""

    problem: SinkError | None = None

    async def create(self, part) -> None:
        """Take a part, or fail as the disk would."""
        if self.problem is not None:
            raise self.problem
        await super().create(part)


def test_an_unavailable_store_makes_the_process_unready_after_its_patience(tmp_path):
    """The process stays ready during a short failure of the store, and is not ready after 60 seconds."""
    shelf = Shelf(tmp_path / "out")
    shelf.problem = SinkError("cannot write to out: No space left on device; free some space", cause="disk_full")

    async def story(seen: Seen) -> None:
        await seen.enqueue(10, "us")
        await seen.at(30)
        assert ([each.cause for each in seen.snapshot.conditions], seen.snapshot.unready_reasons()) == (
            ["disk_full"],
            [],
        )
        assert "Parts cannot be stored: cannot write to out: No space left on device" in seen.page
        assert seen.metrics["harvester_condition", "", "disk_full", "store"] == 1
        assert [each["cause"] for each in seen.events("store_unavailable")] == ["disk_full"]
        await seen.at(90)
        assert seen.snapshot.unready_reasons() == [f"Parts cannot be stored: {shelf.problem}"]
        shelf.problem = None
        assert (await seen.at(200)).unready_reasons() == []
        assert len(seen.events("store_recovered")) == 1

    served(tmp_path, {"us": Wire()}, story, sink=shelf)


def test_one_of_several_places_that_is_blocked_leaves_the_process_ready(tmp_path, monkeypatch):
    """The condition names the place and its workspaces; the process is not ready once all places are blocked."""
    monkeypatch.chdir(tmp_path)
    tables = "".join(f'[workspaces.{name}]\nout = "{name}"\napi_key = "{KEY}-{name}"\n' for name in ("eu", "us"))
    config = tmp_path / "h.toml"
    config.write_text(f'web_port = 0\n[workspace_defaults]\nendpoint = "{AT}"\n{tables}')

    def block(name: str) -> None:
        (tmp_path / name / "send_analytics").write_text("a file in place of the folder of the parts")

    async def story(seen: Seen) -> None:
        block("us")
        await seen.enqueue(10, "us", "eu")
        (condition,) = (await seen.at(90)).conditions
        assert (condition.subject, condition.workspaces) == (str(tmp_path / "us"), ("us",))
        assert condition.sentence.startswith('Parts of workspace "us" cannot be stored: cannot write to us: ')
        assert seen.snapshot.unready_reasons() == []
        assert condition.sentence in seen.page
        assert "2 places, 1 unavailable" in seen.page
        assert seen.metrics["harvester_store_unavailable",] == 1
        assert [(each["place"], each["workspaces"]) for each in seen.events("store_unavailable")] == [
            (str(tmp_path / "us"), ["us"])
        ]
        block_eu = tmp_path / "eu" / "send_analytics"
        block_eu.rename(tmp_path / "stored")
        block("eu")
        await seen.service.enqueue([SentPair(Pair("eu", "c", "later"))], once=True)
        assert len((await seen.at(200)).unready_reasons()) == 2
        for name in ("eu", "us"):
            (tmp_path / name / "send_analytics").unlink()
        assert (await seen.at(400)).conditions == ()

    served(tmp_path, {"us": Wire(), "eu": Wire()}, story, config=config)


class Queue:
    """A broker whose connection fails while ``problem`` says so; its queue is empty."""

    lease_seconds = None
    problem: BrokerError | None = None

    async def open(self) -> list[str]:
        """Connect."""
        if self.problem is not None:
            raise self.problem
        return []

    async def receive(self) -> Sequence[object]:
        """Give nothing, after a wait."""
        await asyncio.sleep(5)
        return await self.open()

    async def is_empty(self) -> bool:
        """It is."""
        return True

    async def dead_letter(self, delivery: object, body: bytes, reason: str) -> None:
        """Nothing comes that could be dead."""

    async def close(self) -> None:
        """Nothing to close."""


def test_an_unavailable_broker_is_a_condition_and_the_process_stays_ready(tmp_path):
    """Page, metrics and log show an unavailable broker, and the log repeats it at most every ten minutes."""
    queue = Queue()

    async def story(seen: Seen) -> None:
        parser = MessageParser(("us",), ())
        trigger = Trigger("sends", queue, parser=parser, enqueue=seen.service.enqueue, clock=seen.clock,
                          jitter=random.Random(1))  # fmt: skip
        seen.service.conditions.triggers.append(trigger)
        task = asyncio.create_task(trigger.run())
        assert (await seen.at(10)).conditions == ()
        queue.problem = BrokerError("RabbitMQ, queue sends: ConnectionRefusedError", cause="connection_refused")
        (condition,) = (await seen.at(60)).conditions
        assert condition.sentence == f'Trigger "sends" is not connected: {queue.problem}'
        assert seen.snapshot.unready_reasons() == []
        assert seen.metrics["harvester_condition", "broker", "connection_refused", "sends"] == 1
        await seen.at(700)
        assert [each["trigger"] for each in seen.events("broker_unavailable")] == ["sends"] * 2
        queue.problem = None
        await seen.at(900)
        assert len(seen.events("broker_recovered")) == 1
        trigger.stop()
        await task

    served(tmp_path, {"us": Wire()}, story)


class SettableMonotonicClock(VirtualClock):
    """A clock whose monotonic time a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        """Return the time that the test has set."""
        return self.now


@asynccontextmanager
async def opened_conditions(location, clock, out):
    """Open a ledger; yields it and the conditions of an engine that does not run."""
    settings = Settings(workspaces={"us": Workspace(endpoint=AT, api_key=SecretStr(KEY))})
    async with await Ledger.open(location, clock=clock) as ledger:
        engine = Engine(settings, ledger=ledger, sink=FolderSink(out),
                                compression=Compression.NONE, until_stopped=True)  # fmt: skip
        yield ledger, Conditions(engine=engine, triggers=[], ledger=ledger, clock=clock)


async def test_a_hanging_ledger_is_reported_without_a_query(tmp_path):
    """A ledger that hangs is reported, because conditions need no query."""
    clock = SettableMonotonicClock()
    async with opened_conditions(tmp_path / "ledger.db", clock, tmp_path / "out") as (ledger, conditions):
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        hanging = asyncio.create_task(ledger.upkeep.resume("us"))
        await asyncio.sleep(0)
        with structlog.testing.capture_logs() as logs:
            for clock.now in (0.0, 9.0, 12.0):
                conditions.report()
            (condition,) = conditions()
            assert (condition.component, condition.cause, condition.blocks) == (Component.LEDGER, "timeout", True)
            other.close()
            await hanging
            while conditions():
                await asyncio.sleep(0)
            conditions.report()
        assert [each["event"] for each in logs] == ["ledger_unavailable", "ledger_recovered"]


@pytest.mark.long
async def test_a_ledger_that_a_stopping_process_gives_up_is_not_reported_as_recovered(
    postgresql, database_url, tmp_path, monkeypatch
):
    """The last event before the process ends with an error must not say that the ledger works again."""
    monkeypatch.setattr(availability, "STOPPING_SECONDS", 0.0)
    clock = SettableMonotonicClock()
    async with opened_conditions(database_url, clock, tmp_path / "out") as (ledger, conditions):
        with postgresql.stopped(), structlog.testing.capture_logs() as logs:
            for clock.now in (0.0, 12.0):
                conditions.report()
            ledger.stop_waiting()
            with pytest.raises(LedgerError):
                await ledger.upkeep.ping()
            for clock.now in (14.0, 16.0):
                conditions.report()
                await asyncio.sleep(0)
        assert [each["event"] for each in logs] == ["ledger_unavailable"]


@pytest.mark.long
def test_a_server_of_the_ledger_that_is_down_makes_the_process_unready_with_the_reason(
    postgresql, database_url, tmp_path
):
    """A snapshot does not wait for it, whether it was begun before or during the outage. The log has it once."""

    async def story(seen: Seen) -> None:
        await seen.enqueue(10, "us")
        await seen.at(20)
        with postgresql.stopped():
            for seconds in (20, 60, 100):
                with pytest.raises(LedgerError, match="cannot be used: connection is bad"):
                    await seen.at(seconds)
            (condition,) = seen.service.conditions()
            assert (condition.component, condition.cause, condition.blocks) == (Component.LEDGER, "unavailable", True)
        assert (await seen.at(200)).unready_reasons() == []
        assert [each["event"] for each in seen.logs if each["event"].startswith("ledger_")] == [
            "ledger_unavailable", "ledger_recovered"
        ]  # fmt: skip

    served(tmp_path, {"us": Wire()}, story, location=database_url)
