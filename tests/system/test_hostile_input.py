"""Hostile input from outside: ids, keys, redirects and signals, and what a process leaves behind."""

import asyncio
import csv
import json
import os
import resource
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from harvester.model import DATASET
from harvester.simulator import Simulator, SimulatorConfig
from tests.braze.test_transport import send_request
from tests.conftest import KEY, read_rows
from tests.support.faulty_server import answer_with, build_response, read_request, serve_script

GOOD = b'{"message":"success","data":[{"time":"2026-11-01","messages":{"sms":[{"sent":1}]}}]}'
IDS = [
    "../../etc/passwd", "..", ".", "/x", "a\\b", "x" * 64, "Ab", "aB", "-rf", "%2e%2e", "a&length=1", "a#b", "a%00b",
    "a b", "=cmd", "+1", "@x", '"', "a,b", "'; DROP TABLE pair; --", "$(id)",
]  # fmt: skip
UNPRINTABLE = ["a\nb", "a\rb", "\x1b[2Jb", "\x1bb", "a\x1cb", "a\x7fb", "a\x9bb", "a\u202eb"]


def write_list(folder: Path, ids: list[str], campaign: str = "c") -> None:
    """Write the ids as a CSV list."""
    with (folder / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("campaign_id", "send_id"), *((campaign, each) for each in ids)])


async def test_hostile_ids_are_treated_as_plain_data(harvester, tmp_path):
    """Each path, option or formula is one pair, one request and one row, and names no file."""
    write_list(tmp_path, IDS + UNPRINTABLE)
    async with serve_script(answer_with(build_response(GOOD), then="keep")) as server:
        code, _, err = await harvester.run("run", "p.csv", "--endpoint", server.url, "--log-json")
        assert code == 3, err
        assert len(server.requests) == len(IDS)
    captures = Counter(row["send_id"] for row in read_rows(tmp_path / "harvest") if row["level"] == "capture")
    assert captures == Counter(IDS)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    outside = {path.parts[0] for path in files} - {"p.csv", "harvest"}
    assert not outside
    assert {path.parts[1] for path in files if path.parts[0] == "harvest"} <= {DATASET, ".harvester"}
    assert not [path for path in files if any(each in str(path) for each in ("passwd", "DROP", "cmd"))]


async def test_hostile_ids_reach_no_terminal_unescaped(harvester, tmp_path):
    """Logs for people, JSON logs, the rejects file and ``status`` contain no control characters."""
    write_list(tmp_path, IDS + UNPRINTABLE)
    replies = iter([b'{"message":"no \x1b[2J"}', b"\x1b[2J\x00 not json"] * len(IDS))

    async def script(reader, writer, server) -> None:
        while True:
            await read_request(reader, server)
            body = next(replies, b"\x1b[2J")
            writer.write(build_response(body, status="400 Bad" if body[:1] == b"{" else "200 OK"))
            await writer.drain()

    async with serve_script(script) as server:
        for logs in ((), ("--log-json",)):
            options = ("--endpoint", server.url, "--patience-seconds", "0", "--concurrency", "1")
            code, out, err = await harvester.run("run", "p.csv", *options, *logs)
            assert code in (3, 4), err
            check_printable(err + out)
            assert "other than printable ASCII" in err
            check_printable((tmp_path / "harvest/.harvester/rejects.ndjson").read_text())
            lines = [line for line in err.splitlines() if line.startswith("{")]
            assert bool(lines) == bool(logs)
            assert all(json.loads(line)["event"] for line in lines)
        code, out, err = await harvester.run("status")
        assert "rejected" in out
        check_printable(out + err)


def check_printable(text: str) -> None:
    """Check that each line is printable."""
    assert not [line for line in text.split("\n") if not line.isprintable()]


async def test_a_key_revoked_during_a_run_costs_few_requests_and_no_pair(harvester, tmp_path):
    """Each worker makes at most one more request, and the run exits with 4.

    The next run with a new key captures the rest.
    """
    pairs, good, workers = [f"s{at}" for at in range(200)], 60, 8
    write_list(tmp_path, pairs)
    (tmp_path / "the.key").write_text(KEY)

    async def script(reader, writer, server) -> None:
        while True:
            head = await read_request(reader, server)
            authorized = (KEY if len(server.requests) <= good else "a-new-key").encode() in head
            await asyncio.sleep(0.005)
            writer.write(build_response(GOOD) if authorized else build_response(head, status="401 Unauthorized"))
            await writer.drain()

    async with serve_script(script) as server:
        arguments = ("run", "p.csv", "--endpoint", server.url, "--api-key-file", "the.key", "--json")
        code, out, err = await harvester.run(*arguments, "--concurrency", str(workers))
        assert code == 4, err
        books = json.loads(out)["books"]
        assert (sum(books["captured"].values()), books["rejected"]) == (good, {})
        assert len(server.requests) <= good + workers
        (tmp_path / "the.key").write_text("a-new-key-0123456789")
        code, out, err = await harvester.run(*arguments)
        assert code == 0, err
        assert sum(json.loads(out)["books"]["captured"].values()) == len(pairs)


async def test_a_second_signal_ends_the_run_at_once_and_loses_nothing(harvester, tmp_path):
    """Open requests are cancelled, and the next run captures all pairs."""
    write_list(tmp_path, ["a", "b", "c"])
    async with serve_script(answer_with(b"", then="silence")) as server:
        process = harvester.start_warm("run", "p.csv", "--endpoint", server.url)
        while not server.requests:
            await asyncio.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        while b"event=stop_requested" not in await asyncio.to_thread(process.stderr.readline):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(15):  # far less than the grace or the timeout
                _, err = await asyncio.to_thread(process.communicate)
        finally:
            process.kill()
        assert process.returncode == 130
        assert b"Traceback" not in err
    async with serve_script(answer_with(build_response(GOOD), then="keep")) as server:
        assert (await harvester.run("run", "p.csv", "--endpoint", server.url))[0] == 0
        assert len(server.requests) == 3


async def test_sigterm_ends_the_first_process_of_a_container(harvester, tmp_path):
    """The kernel ignores SIGTERM for process 1 unless a handler exists. The exit code is 130, as elsewhere."""
    inside = ["unshare", "-Urpf", "--kill-child"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:  # noqa: ASYNC221 - it ends at once
        pytest.skip("this kernel allows no namespaces")
    write_list(tmp_path, ["a", "b", "c"])
    async with serve_script(answer_with(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", then="keep")) as server:
        process = harvester.start("run", "p.csv", "--endpoint", server.url, "--json", inside=inside)
        while b"event=workspace_waiting" not in await asyncio.to_thread(process.stderr.readline):
            assert process.poll() is None
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()  # noqa: ASYNC240 - memory
        os.kill(int(first), signal.SIGTERM)
        out, err = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 130, err
    assert json.loads(out)["books"]["pending"] == 3


@pytest.mark.parametrize("closed", ["<&- 2>&-", ">&-"])
async def test_a_run_without_a_standard_stream_captures_all_pairs(harvester, tmp_path, closed):
    """A run whose standard streams are closed captures all pairs."""
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000, api_key=KEY)) as simulator:
        write_list(
            tmp_path, [each.pair.send_id for each in simulator.population[:1]], simulator.population[0].pair.campaign_id
        )
        inside = ["sh", "-c", f'exec "$@" {closed}', "sh"]
        assert (await harvester.run("run", "p.csv", "--endpoint", simulator.url, inside=inside))[0] == 0
        assert list(simulator.responses) == ["200"]


@pytest.mark.parametrize("command", [("--help",), ("status", "--json"), ("parts",)])
async def test_output_that_cannot_be_written_is_an_error_with_exit_code_5(harvester, tmp_path, command):
    """If the output device is full, the command ends with one error line and without a traceback."""
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000, api_key=KEY)) as simulator:
        write_list(tmp_path, [simulator.population[0].pair.send_id], simulator.population[0].pair.campaign_id)
        assert (await harvester.run("run", "p.csv", "--endpoint", simulator.url))[0] == 0
    process = harvester.start_warm(*command, output_device="/dev/full")
    _, err = await asyncio.to_thread(process.communicate)
    assert process.returncode == 5, err
    assert b"No space left" in err
    assert b"Traceback" not in err


async def test_a_crash_writes_no_core_file(harvester, tmp_path):
    """A crash writes no core file, because it would contain the key."""
    write_list(tmp_path, ["a"])
    async with serve_script(answer_with(b"", then="silence")) as server:
        process = harvester.start_warm("run", "p.csv", "--endpoint", server.url)
        while not server.requests:
            await asyncio.sleep(0.001)
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        process.kill()
        await asyncio.to_thread(process.communicate)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://169.254.169.254/", "//evil.example/", "/again", "\x00"]
)
async def test_redirects_are_not_followed(location):
    """No redirect is followed: to a file, to the cloud's metadata service, to another host or to the same URL."""
    outcome, server = await send_request(answer_with(build_response(b"", f"Location: {location}", status="302 Found")))
    assert len(server.requests) == 1
    assert getattr(outcome, "status", 302) == 302
