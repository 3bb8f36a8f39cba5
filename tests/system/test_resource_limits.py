"""Memory, file descriptors and buffers stay bounded under hostile input."""

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

from harvester.braze.series import MAX_NODES, parse_days
from harvester.braze.transport import MAX_BODY_BYTES, BrazeTransport
from harvester.clock import SystemClock
from harvester.errors import ExchangeError
from harvester.model import BadLine, Pair, SentPair
from harvester.simulator import Simulator, SimulatorConfig
from harvester.sources import Input
from tests.conftest import KEY
from tests.support.faulty_server import answer_with, build_response, read_request, serve_script

GOOD = b'{"message":"success","data":[{"time":"2026-11-01","messages":{}}]}'
OK = b"HTTP/1.1 200 OK\r\n"
WORKERS = 64
FAILURES = 2000
GOOD_ANSWERS = 130
MEMORY_CAP_MIB = 320
"""The container image is documented for 512 MiB."""


def bomb(megabytes: int, text: bytes = b"0" * 1_000_000) -> bytes:
    """Return data that decompresses to about a thousand times its size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(text) for _ in range(megabytes)) + packer.flush()


def bombs() -> list[bytes]:
    """Return responses that are small on the wire and large in memory: gzip, JSON, and a body without end."""
    nested = b'{"message":"success","data":[' + b"{},".join([b""] * 300_000) + b"{}]}"
    return [
        build_response(bomb(20), "Content-Encoding: gzip"),
        build_response(bomb(1, nested + b" " * (8 << 20)), "Content-Encoding: gzip"),
        OK + b"\r\n" + b"x" * (17 << 20),
    ]


async def peak_mib(process: asyncio.subprocess.Process) -> float:
    """Wait for the process to end, and return its peak memory as the kernel counts it."""
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


@pytest.mark.long
async def test_64_simultaneous_bombs_stay_below_the_memory_limit(harvester):
    """Responses are valid until all workers are busy, then each is a bomb. Its pair stays pending."""
    hostile, barrier = itertools.cycle(bombs()), asyncio.Barrier(WORKERS)

    async def script(reader, writer, server) -> None:
        while True:
            await read_request(reader, server)
            if len(server.requests) <= GOOD_ANSWERS:
                await asyncio.sleep(0.02)
                writer.write(build_response(GOOD))
                await writer.drain()
                continue
            try:
                async with asyncio.timeout(3):
                    await barrier.wait()
            except (TimeoutError, asyncio.BrokenBarrierError):
                pass
            writer.write(next(hostile))
            await writer.drain()
            return

    lines = "".join(f"c,s{at}\n" for at in range(GOOD_ANSWERS + WORKERS))
    (harvester.folder / "p.csv").write_text("campaign_id,send_id\n" + lines)
    async with serve_script(script) as server:
        process = await asyncio.create_subprocess_exec(
            *harvester.command("run", "p.csv", "--endpoint", server.url, "--patience-seconds", "0", "--json"),
            cwd=harvester.folder, env=harvester.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        output = asyncio.create_task(process.stdout.read())
        peak = await peak_mib(process)
        summary = json.loads(await output)
    assert process.returncode == 3
    assert sum(summary["books"]["captured"].values()) == GOOD_ANSWERS
    assert summary["responses"].get("oversized", 0) >= WORKERS / 2
    assert peak < MEMORY_CAP_MIB


@pytest.mark.long
async def test_thousands_of_failed_requests_leave_no_file_open():
    """Resets, cut bodies and garbage alternate, and no task is left either."""
    kinds = [
        b"",
        build_response(GOOD)[:-9],
        b"garbage\r\n\r\n",
        build_response(b"<html>"),
        OK + b"Content-Length: 5\r\n\r\nxxxxxxx",
    ]
    async with (
        serve_script(answer_with(b"", then="reset")) as resetting,
        serve_script(respond_in_turn(kinds)) as garbling,
    ):
        transports = [
            BrazeTransport(endpoint=each.url, api_key=KEY, connections=32, clock=SystemClock())
            for each in (resetting, garbling)
        ]
        left = iter(range(FAILURES))
        failed = 0

        async def send_requests(transport: BrazeTransport) -> None:
            nonlocal failed
            for number in left:
                try:
                    answer = await transport.send_series(Pair("w", "c", str(number)), length_days=1, ending_at=1e9)
                    parse_days(answer.body)
                except ExchangeError:
                    failed += 1

        before = count_open_files()
        tasks = len(asyncio.all_tasks())
        await asyncio.gather(*(send_requests(transports[at % 2]) for at in range(WORKERS)))
        for transport in transports:
            await transport.close()
        while len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0)
        assert failed == FAILURES
        assert count_open_files() <= before + 2


def respond_in_turn(bodies: list[bytes]):
    """Answer each connection once with the next body, then close it."""

    async def script(reader, writer, server) -> None:
        await read_request(reader, server)
        writer.write(bodies[len(server.requests) % len(bodies)])
        await writer.drain()

    return script


def count_open_files() -> int:
    """Count this process's file descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_limit_of_forty_files_loses_no_pair(harvester):
    """With a low limit for open files, the next run requests the pairs whose connections could not be opened."""
    config = SimulatorConfig(pairs=150, limit=10_000_000, api_key=KEY, latency_seconds=0.05)
    async with Simulator(config) as simulator:
        lines = "".join(f"{each.pair.campaign_id},{each.pair.send_id}\n" for each in simulator.population)
        (harvester.folder / "p.csv").write_text("campaign_id,send_id\n" + lines)
        arguments = ("run", "p.csv", "--endpoint", simulator.url, "--json", "--patience-seconds", "0")
        process = harvester.start_warm(*arguments)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (40, 40))  # set early, before it has opened 40 files
        output = b""
        while not any(
            each in output for each in (b"=waiting", b"=store_unavailable", b"=endpoint_unavailable", b"=batch_sealed")
        ) and (line := await asyncio.to_thread(process.stderr.readline)):
            output += line
        process.send_signal(signal.SIGTERM)  # otherwise it waits and retries
        output += (await asyncio.to_thread(process.communicate))[1]
        assert process.returncode in (0, 3, 5, 130), output
        assert b"Traceback" not in output
        code, out, err = await harvester.run(*arguments)
        assert code == 0, err
        assert sum(json.loads(out)["books"]["captured"].values()) == 150


class GeneratedStream(io.RawIOBase):
    """A stream whose bytes are generated while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        """Read from these pieces."""
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer) -> int:
        """Copy the next bytes into the buffer."""
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


SMALL_BYTES, BUFFERED_BYTES = 500_000, 6_000_000


@pytest.mark.parametrize(
    ("first", "line", "times", "limit"),
    [
        (b"campaign_id,send_id\n", b"c,a send of twenty b\r\n", 5_000, SMALL_BYTES),
        (b'{"campaign_id":"c","send_id":"s"}\n', b'{"campaign_id":"c","send_id":"s"}\n', 5_000, SMALL_BYTES),
        (b"campaign_id,send_id\n", b"x" * 65_536, 300, BUFFERED_BYTES),  # one line of twenty megabytes
        pytest.param(  # a quote that never ends
            b"campaign_id,send_id\n", b'"' + b"xxxxxxx\n" * 8192, 10, BUFFERED_BYTES, marks=pytest.mark.long
        ),
        (b'{"campaign_id":', b"[" * 65_536, 300, BUFFERED_BYTES),
        (b"[", b'{"campaign_id":"c",\n"send_id":"s"},', 5_000, SMALL_BYTES),
        (b'[{"campaign_id":"', b"x" * 65_536, 300, BUFFERED_BYTES),
    ],
    ids=["csv", "ndjson", "one long line", "an open quote", "deep json", "array", "an open string"],
)
def test_a_list_of_any_length_needs_little_memory(first, line, times, limit):
    """Lines are streamed. A line or quote without end is one bad line, of which a megabyte is buffered."""
    stream = io.BufferedReader(GeneratedStream(iter([first] + [line] * times)))
    tracemalloc.start()
    read = Input(["-"], workspaces=["w"], stdin=stream, now=1e9).read()
    kinds = {type(each) for each in read if each is not None}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kinds <= {SentPair, BadLine}
    assert peak < limit


def test_a_response_with_too_many_json_values_is_refused_before_parsing():
    """A response of a few megabytes of brackets is refused, because it would need hundreds of megabytes as objects."""
    many = b'{"message":"success","data":[' + b"[],".join([b""] * (MAX_NODES + 9)) + b"[]" + b" " * (1 << 20) + b"]}"
    assert len(many) < MAX_BODY_BYTES
    with pytest.raises(ExchangeError) as error:
        parse_days(many)
    assert error.value.cause == "oversized"
