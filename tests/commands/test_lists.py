"""Long lists are enqueued and captured while they are read, with the same result as if they had been read first."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.braze.quota import QuotaReport
from harvester.braze.transport import Response
from harvester.clock import SystemClock
from harvester.commands.capture import Run
from harvester.commands.enqueue import enqueue_all
from harvester.commands.summary import Summary
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.model import Batch, Captured, Pair, ReadingOutcome, SentPair, Verdict
from harvester.settings import Settings, Workspace
from harvester.sources import Input, RejectsFile
from harvester.storage import Compression, FolderSink
from tests.support.clocks import SettableClock
from tests.support.ledger_file import query

PAGE = 5
"""The sends of a page in these tests."""

NOW = 1_790_000_000.0
HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch):
    """Make the pages small, so that a short list has several."""
    monkeypatch.setattr("harvester.sources.send_times.SENDS_IN_MEMORY", PAGE)
    monkeypatch.setattr("harvester.sources.input.PAGE_PAIRS", PAGE)


class Braze:
    """The transport of every workspace: it accepts all requests and keeps their pairs."""

    def __init__(self) -> None:
        """Nothing is requested yet."""
        self.requests: list[tuple[str, str]] = []
        self._requested = asyncio.Event()

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        """Respond that the send has no analytics."""
        del length_days, ending_at
        self.requests.append((pair.workspace, pair.send_id))
        self._requested.set()
        now = time.time()
        return Response(200, b'{"message":"success","data":[]}', QuotaReport(10**8, 10**8, now + 3600, now), 0.0)

    async def wait_for(self, workspace: str) -> None:
        """Wait until a pair of a workspace is requested."""
        while workspace not in dict(self.requests):
            self._requested.clear()
            await self._requested.wait()

    def scrub(self, text: str) -> str:
        """Return the text."""
        return text

    async def close(self) -> None:
        """Nothing to close."""


class Scene:
    """A run of lists; standard input is a pipe that the test feeds."""

    def __init__(self, folder: Path, *lists: str) -> None:
        """Use a new ledger in ``folder``."""
        self.braze = Braze()
        self.folder = folder
        self._lists = lists or ("-",)
        self._stdin: BinaryIO = BytesIO()
        if not lists:
            reader, self._writer = os.pipe()
            self._stdin = os.fdopen(reader, "rb", buffering=0)
        self.run: Run

    async def capture(self) -> Summary:
        """Capture the lists."""
        workspaces = {
            each: Workspace(endpoint="https://rest.fra-01.braze.eu", api_key="k" * 20) for each in ("eu", "us")
        }
        async with await Ledger.open(self.folder / "ledger.db", clock=SystemClock()) as ledger:
            self.run = Run(
                Settings(workspaces=workspaces), ledger=ledger, sink=FolderSink(self.folder / "out"),
                compression=Compression.NONE, connect=lambda *_: self.braze,
            )  # fmt: skip
            now = ledger.clock.wall()
            listed = Input(self._lists, workspaces=list(workspaces), stdin=self._stdin, now=now)
            with structlog.testing.capture_logs():
                return await self.run.capture(listed, RejectsFile(self.folder / "rejects.ndjson"))

    def feed(self, *rows: str) -> None:
        """Write rows to the pipe."""
        os.write(self._writer, "".join(f"{row}\n" for row in rows).encode())

    def end(self) -> None:
        """Close the pipe."""
        os.close(self._writer)


def rows(workspace: str, first: int, last: int) -> list[str]:
    """Return rows of sends."""
    return [f"{workspace},c,s{number}" for number in range(first, last)]


HEADER = "workspace,campaign_id,send_id"


async def test_the_first_request_leaves_before_the_list_is_read(tmp_path):
    """The pipe stays open until a request arrives. A workspace of the last rows is captured too, each send once."""
    scene = Scene(tmp_path)
    running = asyncio.create_task(scene.capture())
    scene.feed(HEADER, *rows("eu", 0, 50))
    await scene.braze.wait_for("eu")
    assert scene.run.is_reading_lists
    scene.feed(*rows("eu", 30, 70), *rows("us", 0, 70))
    await scene.braze.wait_for("us")
    scene.feed(*rows("us", 70, 75), "us,c,")
    scene.end()
    done = await running
    expected = [("eu", f"s{number}") for number in range(70)] + [("us", f"s{number}") for number in range(75)]
    assert Counter(scene.braze.requests) == Counter(expected)
    assert (done.lines, done.bad_lines, done.exit_code, done.books.pending) == (166, 1, 3, 0)
    assert done.formats == [
        "standard input: CSV, separated by commas; columns "
        + HEADER.replace(",", ", ")
        + "; rows 165, sends 145, duplicates 20"
    ]


async def test_a_stop_does_not_wait_for_a_silent_pipe(tmp_path):
    """The sends that were read are captured or pending; the exit code shows that the list was not read completely."""
    scene = Scene(tmp_path)
    running = asyncio.create_task(scene.capture())
    scene.feed(HEADER, *rows("eu", 0, 50))
    await scene.braze.wait_for("eu")
    scene.run.stop()
    done = await running
    assert (done.lists_read, done.exit_code) == (False, 130)
    scene.end()


async def test_a_list_that_becomes_unreadable_stops_the_run_and_keeps_what_was_captured(tmp_path):
    """A second header with other columns is an error of the list. Nothing that was enqueued is lost."""
    scene = Scene(tmp_path)
    running = asyncio.create_task(scene.capture())
    scene.feed(HEADER, *rows("eu", 0, 50))
    await scene.braze.wait_for("eu")
    scene.feed("campaign_id,workspace,send_id", *rows("eu", 50, 99))
    scene.end()
    done = await running
    assert isinstance(done.problem, UsageError)
    assert (done.exit_code, done.lists_read, done.books.balanced) == (2, False, True)
    assert sum(done.books.captured.values()) + done.books.pending == done.books.accepted >= PAGE


@pytest.mark.parametrize("second", ["campaign_id,other\nc,s\n", None])
async def test_a_wrong_header_of_any_list_is_refused_before_the_first_request(tmp_path, second):
    """Only the last list, and only a single file, is captured while it is read."""
    (tmp_path / "lists").mkdir()
    first = tmp_path / "lists" / "1.csv"
    first.write_text("\n".join([HEADER, *rows("eu", 0, 100), ""]))
    (tmp_path / "lists" / "2.csv").write_text(second or "campaign_id,other\n")
    lists = [str(first), str(tmp_path / "lists" / "2.csv")] if second else [str(tmp_path / "lists")]
    scene = Scene(tmp_path, *lists)
    with pytest.raises(UsageError, match=r"2\.csv"):
        await scene.capture()
    assert not scene.braze.requests


def test_an_interrupt_ends_a_command_that_waits_for_a_silent_pipe(harvester):
    """The process ends although a thread still waits for the pipe."""
    process = harvester.start("enqueue", "-", stdin=subprocess.PIPE)
    process.stdin.write(b"campaign_id,send_id\n" + b"c,s\n" * 20_000)  # more than a pipe holds: the command reads it
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.communicate()


Times = Sequence[tuple[int, float | None]]
"""Rows of a list: the number of a send, and its time."""


class Killed(Exception):  # noqa: N818 - an event, not an error
    """The process ended while it read a list."""


async def import_list(ledger: Ledger, times: Times, how: str) -> None:
    """Enqueue a list. ``how`` is ``whole`` (read first), ``paged``, ``killed`` at its second page, or ``captured``.

    With ``captured``, all due pairs are captured after each page.
    """
    text = "campaign_id,send_id,sent_at\n" + "".join(f"c,s{send},{sent_at or ''}\n" for send, sent_at in times)
    loop = asyncio.get_running_loop()

    pages = 0

    async def enqueue(page: Sequence[SentPair]) -> bool:
        nonlocal pages
        pages += 1
        if how == "killed" and pages == 2:
            raise Killed
        new = await ledger.intake.enqueue_new(page)
        if how == "captured":
            await capture_due(ledger)
        return new == len(page)

    def enqueue_new(page: Sequence[SentPair]) -> bool:
        return asyncio.run_coroutine_threadsafe(enqueue(page), loop).result()

    listed = Input(["-"], workspaces=["w"], stdin=BytesIO(text.encode()), now=NOW)
    rejects = RejectsFile(ledger.location.with_name("rejects.ndjson"))
    async for _ in enqueue_all(
        ledger, listed, rejects, once=True, enqueue_new=None if how == "whole" else enqueue_new
    ):  # fmt: skip
        pass


async def capture_due(ledger: Ledger) -> None:
    """Capture all due pairs."""
    readings = await ledger.batches.claim({"w": 1000})
    captured = Captured(Verdict.EMPTY, NOW, b"", 0)
    if readings:
        await ledger.batches.seal([(Batch.open(NOW), [ReadingOutcome(each, captured) for each in readings], [])])


PLANS = "SELECT send_id, sent_at, expires_at, reading, due_at, state, outcome, captures FROM pair ORDER BY send_id"
"""What decides the next reading of each pair."""

CAPTURES = "SELECT send_id, round, captures, state, outcome FROM pair ORDER BY send_id"
"""How often each pair was captured."""


old = st.integers(0, 20 * 24).map(lambda hours: NOW - hours * HOUR)
unknown_or_old = st.one_of(st.none(), old)
recent = st.integers(0, 13 * 24).map(lambda hours: NOW - hours * HOUR)


def passes(times: st.SearchStrategy[float | None], *, most: int) -> st.SearchStrategy[Times]:
    """Return lists that name the same sends several times, in another order and with other times in each pass."""
    each = st.tuples(st.permutations(range(2 * PAGE)), st.lists(times, min_size=2 * PAGE, max_size=2 * PAGE))
    one = each.map(lambda found: list(zip(*found, strict=False)))
    return st.lists(one, max_size=most).map(lambda found: [row for rows in found for row in rows])


def import_in_turn(folder: Path, times: Times, known: Times, *how: str, sql: str) -> list[tuple]:
    """Enqueue known sends, and then a list in each of these ways in turn; return the rows of a query."""

    async def story() -> list[tuple]:
        async with await Ledger.open(folder / how[0] / "ledger.db", clock=SettableClock(NOW)) as ledger:
            before = [SentPair(Pair("w", "c", f"s{send}"), sent_at) for send, sent_at in known]
            await ledger.intake.enqueue(before, once=True)
            for each in how:
                with contextlib.suppress(Killed):
                    await import_list(ledger, times, each)
            if sql is CAPTURES:
                await capture_due(ledger)
            return query(ledger.location, sql)

    return asyncio.run(story())


@pytest.mark.parametrize("times", [unknown_or_old, pytest.param(recent, marks=pytest.mark.long)])
def test_a_list_that_is_enqueued_while_it_is_read_has_the_same_plan_as_one_that_was_read_first(tmp_path_factory, times):
    """For any order, repeats, times and known pairs, also after a kill, as long as nothing is captured meanwhile."""

    @settings(max_examples=15)
    @given(passes(times, most=3), passes(times, most=1))
    def check(listed: Times, known: Times) -> None:
        folder = tmp_path_factory.mktemp("lists")
        whole = import_in_turn(folder, listed, known, "whole", sql=PLANS)
        assert import_in_turn(folder, listed, known, "paged", sql=PLANS) == whole
        assert import_in_turn(folder, listed, known, "killed", "paged", sql=PLANS) == whole

    check()


@pytest.mark.long
def test_a_send_is_not_captured_again_because_its_time_changes_in_later_rows(tmp_path_factory):
    """Pairs that are captured after each page have as many captures as if the list had been read first.

    This is also true if the same list is read again.
    """

    @settings(max_examples=15)
    @given(passes(st.one_of(st.none(), recent), most=3))
    def check(rows: Times) -> None:
        folder = tmp_path_factory.mktemp("lists")
        whole = import_in_turn(folder, rows, [], "whole", sql=CAPTURES)
        assert import_in_turn(folder, rows, [], "captured", sql=CAPTURES) == whole
        assert import_in_turn(folder, rows, [], "captured", "captured", sql=CAPTURES) == whole

    check()
