"""What is bounded stays bounded when everybody is hostile: memory, file descriptors, and what a stream holds."""

import asyncio
import io
import itertools
import json
import resource
import signal
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvester.braze.series import MAX_NODES, days_of
from harvester.braze.transport import MAX_BODY_BYTES, BrazeTransport
from harvester.clock import SystemClock
from harvester.errors import ExchangeError
from harvester.model import BadLine, Enqueued, Pair
from harvester.simulator import Simulator, SimulatorConfig
from harvester.sources import Input
from tests.conftest import KEY
from tests.support.faulty_server import answering, request, serving, whole

GOOD = b'{"message":"success","data":[{"time":"2026-11-01","messages":{}}]}'
OK = b"HTTP/1.1 200 OK\r\n"
WORKERS = 64
FAILURES = 2000
GOOD_ANSWERS = 130
MEMORY_CAP_MIB = 320
"""The image is meant for 512."""


def bomb(megabytes: int, text: bytes = b"0" * 1_000_000) -> bytes:
    """A thousandth of what it decodes to."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(text) for _ in range(megabytes)) + packer.flush()


def bombs() -> list[bytes]:
    """Answers that are small on the wire and large in memory: gzip, JSON, and one that does not end."""
    nested = b'{"message":"success","data":[' + b"{},".join([b""] * 300_000) + b"{}]}"
    return [
        whole(bomb(60), "Content-Encoding: gzip"),
        whole(bomb(1, nested + b" " * (8 << 20)), "Content-Encoding: gzip"),
        OK + b"\r\n" + b"x" * (17 << 20),
    ]


async def peak_mib(process: asyncio.subprocess.Process) -> float:
    """Wait for a process's end; gives the most memory it had, as the kernel counted it."""
    peak = 0
    while process.returncode is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()  # noqa: ASYNC240 - memory, no disk
        except (ProcessLookupError, FileNotFoundError):
            break
        peak = max([peak] + [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")])
        await asyncio.sleep(0.02)
    await process.wait()
    return peak / 1024


async def test_sixty_four_bombs_at_once_stay_below_the_cap(harvester):
    """Well until all workers are busy, then every answer is a bomb: memory stays bounded, and all pairs pending."""
    hostile, together = itertools.cycle(bombs()), asyncio.Barrier(WORKERS)

    async def script(reader, writer, server) -> None:
        while True:
            await request(reader, server)
            if len(server.requests) <= GOOD_ANSWERS:
                await asyncio.sleep(0.02)
                writer.write(whole(GOOD))
                await writer.drain()
                continue
            try:
                async with asyncio.timeout(3):
                    await together.wait()
            except (TimeoutError, asyncio.BrokenBarrierError):
                pass
            writer.write(next(hostile))
            await writer.drain()
            return

    lines = "".join(f"c,s{at}\n" for at in range(GOOD_ANSWERS + WORKERS))
    (harvester.folder / "p.csv").write_text("campaign_id,send_id\n" + lines)
    async with serving(script) as server:
        process = await asyncio.create_subprocess_exec(
            *harvester.command("run", "p.csv", "--endpoint", server.url, "--patience-seconds", "0", "--json"),
            cwd=harvester.folder, env=harvester.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        said = asyncio.create_task(process.stdout.read())
        peak = await peak_mib(process)
        summary = json.loads(await said)
    assert process.returncode == 3
    assert sum(summary["books"]["captured"].values()) == GOOD_ANSWERS
    assert summary["answers"].get("oversized", 0) >= WORKERS / 2
    assert peak < MEMORY_CAP_MIB


async def test_thousands_of_failures_leave_no_descriptor_open():
    """Resets, cuts and garbage in turn: after them as many files and tasks are open as before."""
    kinds = [b"", whole(GOOD)[:-9], b"garbage\r\n\r\n", whole(b"<html>"), OK + b"Content-Length: 5\r\n\r\nxxxxxxx"]
    async with serving(answering(b"", then="reset")) as resetting, serving(turns(kinds)) as garbling:
        transports = [
            BrazeTransport(endpoint=each.url, api_key=KEY, connections=32, clock=SystemClock())
            for each in (resetting, garbling)
        ]
        left = iter(range(FAILURES))
        failed = 0

        async def ask(transport: BrazeTransport) -> None:
            nonlocal failed
            for number in left:
                try:
                    answer = await transport.send_series(Pair("w", "c", str(number)), length_days=1, ending_at=1e9)
                    days_of(answer.body)
                except ExchangeError:
                    failed += 1

        before = open_files()
        tasks = len(asyncio.all_tasks())
        await asyncio.gather(*(ask(transports[at % 2]) for at in range(WORKERS)))
        for transport in transports:
            await transport.close()
        while len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0)
        assert failed == FAILURES
        assert open_files() <= before + 2


def turns(kinds: list[bytes]):
    """Answer each connection's requests by the next of these, then close."""

    async def script(reader, writer, server) -> None:
        await request(reader, server)
        writer.write(kinds[len(server.requests) % len(kinds)])
        await writer.drain()

    return script


def open_files() -> int:
    """Count this process's descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_with_forty_descriptors_it_goes_on(harvester):
    """A tight limit costs time and no pair: connections that cannot be opened are failures to try again."""
    config = SimulatorConfig(pairs=150, limit=10_000_000, api_key=KEY, latency_seconds=0.05)
    async with Simulator(config) as simulator:
        lines = "".join(f"{each.pair.campaign_id},{each.pair.send_id}\n" for each in simulator.population)
        (harvester.folder / "p.csv").write_text("campaign_id,send_id\n" + lines)

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--json", "--patience-seconds", "0")
        process = harvester.start(*arguments, preexec_fn=limit)
        said = b""
        while not any(
            each in said for each in (b"=waiting", b"=store_unavailable", b"=endpoint_unavailable", b"=batch_sealed")
        ) and (line := await asyncio.to_thread(process.stderr.readline)):
            said += line
        process.send_signal(signal.SIGTERM)  # it would try again after a while
        said += (await asyncio.to_thread(process.communicate))[1]
        assert process.returncode in (0, 3, 5, 130), said
        assert b"Traceback" not in said
        code, out, err = await harvester.run(*arguments)
        assert code == 0, err
        assert sum(json.loads(out)["books"]["captured"].values()) == 150


class Endless(io.RawIOBase):
    """A list of pairs that is made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        """Give these pieces."""
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer) -> int:
        """Give some bytes."""
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(
    ("first", "line", "times"),
    [
        (b"campaign_id,send_id\n", b"c,a send of twenty b\r\n", 10_000),
        (b'{"campaign_id":"c","send_id":"s"}\n', b'{"campaign_id":"c","send_id":"s"}\n', 10_000),
        (b"campaign_id,send_id\n", b"x" * 65_536, 300),  # one line of twenty megabytes
        (b"campaign_id,send_id\n", b'"' + b"xxxxxxx\n" * 8192, 10),  # a quote that never ends
        (b'{"campaign_id":', b"[" * 65_536, 300),
    ],
    ids=["csv", "ndjson", "one long line", "an open quote", "deep json"],
)
def test_a_list_of_any_length_is_read_in_little_memory(first, line, times):
    """Lines are streamed; of a line or a quote without an end a megabyte is held, and it is one bad line."""
    stream = io.BufferedReader(Endless(iter([first] + [line] * times)))
    tracemalloc.start()
    read = Input(["-"], workspaces=["w"], stdin=stream, now=1e9).read()
    kinds = {type(each) for each in read if each is not None}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kinds <= {Enqueued, BadLine}
    assert peak < 6_000_000


def test_an_answer_of_many_small_things_is_refused_before_it_is_unpacked():
    """A few megabytes of brackets would take hundreds as objects."""
    many = b'{"message":"success","data":[' + b"[],".join([b""] * (MAX_NODES + 9)) + b"[]" + b" " * (1 << 20) + b"]}"
    assert len(many) < MAX_BODY_BYTES
    with pytest.raises(ExchangeError) as refused:
        days_of(many)
    assert refused.value.cause == "oversized"
