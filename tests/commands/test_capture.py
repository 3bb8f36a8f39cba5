"""``harvester run`` from outside: a process, a stand-in API, and files."""

import asyncio
import csv
import json
import shutil
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harvester.books import Books
from harvester.cli.books import refused_lines
from harvester.cli.doctor import table_lines
from harvester.commands.workspace_checks import Finding
from harvester.datasets import build_latest_query
from harvester.simulator import Simulator, SimulatorConfig
from tests.conftest import read_rows
from tests.support.secret_canary import KEY
from tests.support.warm_process import fork


def write_pairs(path: Path, simulator: Simulator, *more: tuple[str, str]) -> None:
    """Write all sends of the stand-in API, and more lines."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["campaign_id", "send_id", "sent_at"])
        for each in simulator.population:
            sent_at = datetime.fromtimestamp(each.sent_at, UTC).isoformat()
            writer.writerow([each.pair.campaign_id, each.pair.send_id, sent_at])
        writer.writerows([*pair, ""] for pair in more)


async def test_every_pair_is_captured_once_and_a_second_run_requests_nothing(harvester, tmp_path):
    """Each pair of the input is in the parts once, and a second run sends no request."""
    async with Simulator(SimulatorConfig(pairs=300, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        arguments = ("run", "pairs.csv", "--endpoint", simulator.url, "--json")
        code, out, err = await harvester.run(*arguments)
        assert code == 0, err
        summary = json.loads(out)
        assert summary["books"]["balanced"]
        assert summary["books"]["accepted"] == sum(summary["books"]["captured"].values()) == 300
        captures = Counter(
            (row["campaign_id"], row["send_id"]) for row in read_rows(tmp_path / "harvest") if row["level"] == "capture"
        )
        assert captures == Counter((each.pair.campaign_id, each.pair.send_id) for each in simulator.population)
        requests = simulator.responses.total()
        assert (await harvester.run(*arguments))[0] == 0
        assert simulator.responses.total() == requests


async def test_a_run_that_is_killed_continues_and_loses_or_repeats_nothing(harvester, tmp_path):
    """After five SIGKILLs and many faults, the books balance, each pair has one capture, and no part has changed."""
    config = SimulatorConfig(pairs=400, limit=10_000_000, api_key=KEY, fault_rate=0.03, latency_seconds=0.02)
    async with Simulator(config) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        arguments = ("run", "pairs.csv", "--endpoint", simulator.url, "--json", "--concurrency", "16")
        parts: dict[Path, bytes] = {}
        for kill in range(5):
            process = await asyncio.to_thread(fork, tmp_path, harvester.env, *arguments)
            until = simulator.responses.total() + 40 + 10 * kill
            while simulator.responses.total() < until and process.exitcode is None:
                await asyncio.sleep(0.01)
            process.kill()
            await asyncio.to_thread(process.join)
            now = {path: path.read_bytes() for path in tmp_path.glob("harvest/send_analytics/*/*.zst")}
            assert all(now[path] == data for path, data in parts.items())
            parts = now
        code, out, err = await harvester.run(*arguments)
        assert code == 0, err
        summary = json.loads(out)
        assert summary["books"]["balanced"]
        assert sum(summary["books"]["captured"].values()) == 400
    captures = Counter(
        (row["campaign_id"], row["send_id"]) for row in read_rows(tmp_path / "harvest") if row["level"] == "capture"
    )
    assert captures == Counter((each.pair.campaign_id, each.pair.send_id) for each in simulator.population)
    assert all(path.read_bytes() == data for path, data in parts.items())


async def test_processes_on_one_ledger_end_together_and_take_over_from_a_dead_one(harvester, tmp_path):
    """A process without work waits for the other's readings, claims them when it dies, and ends with 0."""
    async with AsyncExitStack() as stack:
        config = {"pairs": 5, "limit": 1_000_000, "api_key": KEY}
        silent = await stack.enter_async_context(Simulator(SimulatorConfig(**config, fault_rate=1.0, faults=("slow",))))
        simulator = await stack.enter_async_context(Simulator(SimulatorConfig(**config)))
        write_pairs(tmp_path / "pairs.csv", simulator)
        first = harvester.start_warm("run", "pairs.csv", "--endpoint", silent.url)
        while not silent.responses:
            await asyncio.sleep(0.01)
        second = harvester.start_warm("run", "pairs.csv", "--endpoint", simulator.url, "--json")
        await asyncio.to_thread(lambda: next(line for line in second.stderr if b"cause=other_process" in line))
        first.kill()
        out, _ = await asyncio.to_thread(second.communicate)
        await asyncio.to_thread(first.communicate)
    assert (second.returncode, json.loads(out)["books"]["pending"]) == (0, 0)
    captures = Counter(row["send_id"] for row in read_rows(tmp_path / "harvest") if row["level"] == "capture")
    assert captures == Counter(each.pair.send_id for each in simulator.population)


async def test_bad_lines_and_refused_pairs_are_reported_and_the_rest_is_captured(harvester, tmp_path):
    """The rejects file names a bad line by file, line and field; a refused pair is counted."""
    async with Simulator(SimulatorConfig(pairs=20, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator, ("no-such-campaign", "s"), ("c", ""), ("c", "x" * 65))
        code, out, _ = await harvester.run("run", "pairs.csv", "--endpoint", simulator.url, "--json")
    summary = json.loads(out)
    assert code == 3
    assert summary["books"]["rejected"] == {"status_400": 1}
    assert sum(summary["books"]["captured"].values()) == 20
    bad = [json.loads(line) for line in (tmp_path / "harvest/.harvester/rejects.ndjson").read_text().splitlines()]
    assert [(each["source"], each["line"], each["field"]) for each in bad] == [
        ("pairs.csv", 23, "send_id"),
        ("pairs.csv", 24, "send_id"),
    ]


async def test_if_braze_refuses_every_pair_the_usual_cause_is_named(harvester, tmp_path):
    """The summary and ``status`` name internal ids, another workspace's ids and a wrong endpoint."""
    (tmp_path / "pairs.csv").write_text("campaign_id,send_id\n" + "".join(f"internal,s{n}\n" for n in range(5)))
    async with Simulator(SimulatorConfig(pairs=20, limit=1_000_000, api_key=KEY)) as simulator:
        code, _, err = await harvester.run("run", "pairs.csv", "--endpoint", simulator.url)
    status = (await harvester.run("status"))[1]
    assert code == 3
    for output in (err, status):
        assert "Braze refused every requested pair (5 pairs)" in output
        assert "internal ids of Braze's Snowflake tables" in output


def test_ids_are_not_called_wrong_if_pairs_were_captured():
    """A captured send may be pending, so a few refused pairs do not mean a wrong workspace."""
    followed = Books(accepted=50, captured={}, rejected={"status_404": 10}, expired=0, pending=40, never_read=0)
    assert refused_lines({"us": followed}) == []
    assert refused_lines({"us": replace(followed, never_read=40)}) != []


async def test_a_refused_key_halts_the_workspace_and_is_shown_nowhere(harvester, tmp_path):
    """A 401 echoes the key; the run ends with exit code 4, nothing is lost, and no output or file has the key."""
    async with Simulator(SimulatorConfig(pairs=50, limit=1_000_000, api_key="another-key")) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        code, out, err = await harvester.run("run", "pairs.csv", "--endpoint", simulator.url, "--json")
        assert code == 4
        assert json.loads(out)["books"]["pending"] == 50
        assert simulator.responses.total() == 1
    assert KEY not in out + err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


async def test_an_interrupted_run_keeps_what_it_captured(harvester, tmp_path):
    """On SIGINT the requests in flight finish, and the run ends with 130; the same command then ends with 0."""
    config = SimulatorConfig(pairs=200, limit=10_000_000, api_key=KEY, latency_seconds=0.03)
    async with Simulator(config) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        arguments = ("run", "pairs.csv", "--endpoint", simulator.url, "--json", "--concurrency", "8")
        process = harvester.start_warm(*arguments)
        while simulator.responses.total() < 40:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(process.communicate)
        assert process.returncode == 130, err
        books = json.loads(out)["books"]
        assert books["balanced"]
        assert sum(books["captured"].values()) >= 40
        code, out, err = await harvester.run(*arguments)
        assert code == 0, err
        assert simulator.responses.total() == 200


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_hour_long_wait_for_quota(harvester, tmp_path, signal_number):
    """The run ends at once, with 130; what it captured is stored."""
    async with Simulator(SimulatorConfig(pairs=50, limit=1, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        process = harvester.start_warm("run", "pairs.csv", "--endpoint", simulator.url, "--json")
        while b"event=workspace_waiting" not in await asyncio.to_thread(process.stderr.readline):
            assert process.poll() is None
        process.send_signal(signal_number)
        try:
            async with asyncio.timeout(20):
                out, _ = await asyncio.to_thread(process.communicate)
        finally:
            process.kill()
    books = json.loads(out)["books"]
    assert process.returncode == 130
    assert books["balanced"]
    assert sum(books["captured"].values()) == 1


async def test_an_endpoint_that_does_not_respond_leaves_the_pairs_pending(harvester, tmp_path):
    """The run ends with exit code 3 after a few probes, and every pair stays pending."""
    (tmp_path / "pairs.csv").write_text("campaign_id,send_id\n" + "".join(f"c,s{at}\n" for at in range(50)))
    arguments = ("--endpoint", "http://127.0.0.1:9", "--patience-seconds", "0", "--json")
    code, out, err = await harvester.run("run", "pairs.csv", *arguments)
    assert code == 3, err
    assert json.loads(out)["books"]["pending"] == 50
    message = "cannot connect to http://127.0.0.1:9: connection refused"
    assert json.loads(out)["unreachable"] == {"default": message}
    assert err.count(message) == err.count("\n") == 1, err


async def test_rows_are_written_to_a_pipe(harvester, tmp_path):
    """With ``-o -`` standard output contains only rows, and no file is left behind."""
    async with Simulator(SimulatorConfig(pairs=30, limit=1_000_000, api_key=KEY)) as simulator:
        lines = [
            json.dumps({"campaign_id": each.pair.campaign_id, "send_id": each.pair.send_id})
            for each in simulator.population
        ]
        code, out, err = await harvester.run(
            "run", "-", "-o", "-", "--endpoint", simulator.url, stdin="\n".join(lines).encode()
        )
    assert code == 0, err
    assert sum(json.loads(line)["level"] == "capture" for line in out.splitlines()) == 30
    assert not list(tmp_path.rglob("*.db"))


async def test_user_errors_are_one_sentence(harvester, tmp_path):
    """A wrong list, endpoint or ledger ends the command with exit code 2 and one sentence, without a traceback."""
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    for arguments in (
        ("run", "missing.csv", "--endpoint", "https://rest.fra-01.braze.eu"),
        ("run", "pairs.csv", "--endpoint", "https://rest.fra-01.braze.eu"),
        ("run", "pairs.csv", "--endpoint", "http://rest.fra-01.braze.eu"),
        ("run", "pairs.csv", "--endpoint", "https://evil.example"),
        ("run", "pairs.csv"),
        ("run", "pairs.csv", "--endpoint", "https://rest.fra-01.braze.eu", "--reserve", "7"),
        ("status", "-o", "nowhere"),
    ):
        code, out, err = await harvester.run(*arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert "Traceback" not in err
        assert err.count("harvester: ") == 1


async def test_expired_pairs_cost_one_request_for_the_time_and_force_requests_them(harvester, tmp_path):
    """One request confirms the time, however many sends are too old; ``--force`` captures them."""
    async with Simulator(SimulatorConfig(pairs=10, limit=1_000_000, api_key=KEY)) as simulator:
        campaign = simulator.population[0].pair.campaign_id
        (tmp_path / "old.csv").write_text(
            f"campaign_id,send_id,sent_at\n{campaign},old,2020-01-01\n{campaign},older,2019-01-01\n"
        )
        arguments = ("run", "old.csv", "--endpoint", simulator.url, "--json")
        code, out, _ = await harvester.run(*arguments)
        assert (code, json.loads(out)["books"]["expired"], simulator.responses.total()) == (3, 2, 1)
        code, out, _ = await harvester.run(*arguments, "--force")
        assert (code, json.loads(out)["books"]["expired"], simulator.responses.total()) == (0, 0, 3)


async def test_the_demo_runs_twice_and_shows_the_data(harvester, tmp_path):
    """A second demo sends no request and replaces no file."""
    for _ in range(2):
        code, out, err = await harvester.run("demo", "--pairs", "200")
        assert code == 0, err
        assert "accepted   200 pairs" in err
        assert "email" in out
        assert "Output: ./demo-out\n" in err
        assert build_latest_query("./demo-out") in out
        assert "never sum over readings" in out
        assert "harvester latest demo-out -o latest.parquet" in out.splitlines()[-1]
        left = sorted(path.name for path in (tmp_path / "demo-out").iterdir())
        assert left == [".harvester", "pairs.csv", "send_analytics"]


async def test_plan_enqueue_status_requeue_and_parts_agree(harvester, tmp_path):
    """The plan announces as many requests as the run sends. Refused pairs are listed and can be requeued."""
    async with Simulator(SimulatorConfig(pairs=40, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator, ("no-such-campaign", "s"))
        as_run = ("pairs.csv", "--endpoint", simulator.url, "--api-key-file", "none", "--reserve", "0.3", "--json")
        code, out, _ = await harvester.run("plan", *as_run)
        assert (code, json.loads(out)["requests"], simulator.responses.total()) == (0, 41, 0)
        code, out, _ = await harvester.run("enqueue", "pairs.csv")
        assert (code, out.splitlines()[0]) == (0, "41 pairs are new, 0 were known")
        code, _, err = await harvester.run("run", "--endpoint", simulator.url)
        assert (code, simulator.responses.total()) == (3, 41), err
        code, out, _ = await harvester.run("plan", "pairs.csv", "--json")
        assert json.loads(out)["requests"] == 0
        code, out, _ = await harvester.run("status")
        assert "no-such-campaign" in out
        code, out, _ = await harvester.run("requeue", "--outcome", "rejected", "--reason", "status_400")
        assert out.startswith("1 pair is pending again")
        code, out, _ = await harvester.run("parts")
        listed = [json.loads(line) for line in out.splitlines()]
        rows = read_rows(tmp_path / "harvest")
        assert sum(part["row_count"] for part in listed) == len(rows)
        last = max(row["captured_at"] for row in rows)
        assert all(last <= part["stored_at"] <= datetime.now(UTC).isoformat() for part in listed)
        code, out, _ = await harvester.run("parts", "--since", str(listed[-1]["order"]))
        assert out == ""


async def test_doctor_names_the_setting_to_correct(harvester):
    """``doctor`` accepts a good setup, and reports a wrong key without showing it."""
    async with Simulator(SimulatorConfig(pairs=10, api_key=KEY)) as simulator:
        code, out, err = await harvester.run("doctor", "--endpoint", simulator.url)
        assert code == 0, out + err
        assert "does not overwrite" in out
        harvester.env["BRAZE_API_KEY"] = "a-wrong-key-4711"
        code, out, err = await harvester.run("doctor", "--endpoint", simulator.url)
        assert code == 2
        assert "sends.data_series" in out
        assert "4711" not in out + err
        assert "quota" not in out, "a refused key has no quota to report"


async def test_doctor_continues_after_a_failed_check(harvester, tmp_path):
    """An endpoint that does not respond and a damaged ledger hide no other problem, and scripts read JSON."""
    state = tmp_path / "harvest" / ".harvester"
    state.mkdir(parents=True)
    (state / "ledger.db").write_text("no database, but text that is long enough for a header " * 3)
    code, out, err = await harvester.run("doctor", "--endpoint", "http://127.0.0.1:1", "--json")
    found = json.loads(out)
    failed = [(each["workspace"], each["check"], each["ok"]) for each in found["checks"]]
    expected = [("default", "endpoint", False), (None, "ledger", False), (None, "place", True)]
    assert (code, found["exit_code"], failed) == (2, 2, expected), out + err
    code, out, _ = await harvester.run("doctor", "--endpoint", "not-a-url")
    assert (code, out.startswith("FAIL  configuration  ")) == (2, True)


def test_findings_are_a_table_whose_texts_stay_in_their_column():
    """Of several workspaces, each finding names its own."""
    findings = [
        Finding("key", ok=True, text="accepted", workspace="eu"),
        Finding("clock", ok=False, text="3 days ahead of the clock of Braze", workspace="us"),
        Finding("ledger", ok=True, text="can be read"),
    ]
    assert table_lines(findings, 40) == [
        "ok    eu: key    accepted",
        "FAIL  us: clock  3 days ahead of the",
        "                 clock of Braze",
        "ok    ledger     can be read",
    ]
    assert table_lines(findings[:1], None) == ["ok    key  accepted"]


async def test_doctor_counts_missing_parts(harvester, tmp_path):
    """``doctor`` names the parts that somebody deleted, and the error of ``latest`` names ``doctor``."""
    async with Simulator(SimulatorConfig(pairs=3, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        assert (await harvester.run("run", "pairs.csv", "--endpoint", simulator.url))[0] == 0
        code, out, err = await harvester.run("doctor", "--endpoint", simulator.url)
        assert (code, "no stored part of this ledger is missing: 1 compared" in out) == (0, True), out + err
        shutil.rmtree(tmp_path / "harvest" / "send_analytics")
        code, out, err = await harvester.run("doctor", "--endpoint", simulator.url)
        assert (code, "1 of 1 stored parts are missing, the first is send_analytics/" in out) == (2, True)
        assert "restore them from a copy" in out
        assert "harvester remove" in out
        code, _, err = await harvester.run("latest", "harvest")
        assert (code, "contains no parts; name" in err, "harvester doctor -o harvest" in err) == (2, False, True), err


async def test_doctor_leaves_nothing_behind(harvester, tmp_path):
    """``doctor`` reports places that do not exist yet as usable, does not create them, and changes no other place."""

    def there():
        return {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    async with Simulator(SimulatorConfig(pairs=3, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        arguments = ("--endpoint", simulator.url, "-o", "not/yet")
        before = there()
        code, out, err = await harvester.run("doctor", *arguments, "--state", "nor/this.db")
        assert (code, there()) == (0, before), out + err
        assert (await harvester.run("run", "pairs.csv", *arguments))[0] == 0
        before = there()
        code, out, err = await harvester.run("doctor", *arguments)
        assert (code, there()) == (0, before), out + err
        code, out, _ = await harvester.run("doctor", *arguments, "--state", "another.db")
        assert (code, there(), "with another ledger" in out) == (2, before, True)
        code, out, _ = await harvester.run("doctor", "--endpoint", simulator.url, "-o", "pairs.csv/below")
        assert (code, there(), "Not a directory" in out) == (2, before, True)
