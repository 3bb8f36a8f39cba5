"""Whole runs into a bucket: after a kill or an outage of the store, no sealed part is lost or stored twice."""

import asyncio
import json
from collections import Counter

import pytest
import zstandard

from harvester.simulator import Simulator, SimulatorConfig
from harvester.storage.object_store import ObjectStore
from tests.conftest import KEY
from tests.support.buckets import BucketRun, connect_to, count_captures
from tests.support.tcp_proxy import TcpProxy
from tests.support.warm_process import fork

PAIRS = 60
"""The readings of two batches, see ``BucketRun``."""


@pytest.mark.parametrize("cut", ["before", "within", "after"])
@pytest.mark.parametrize("name", ["moto", "radosgw", "azurite"])
async def test_a_kill_at_each_put_loses_nothing(stores, tmp_path, monkeypatch, name, cut):
    """After SIGKILL at any put, with the put cut off, nothing is missing, written twice or requested again."""
    bucket, log = stores(name), tmp_path / "answers.ndjson"
    config = SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)
    async with Simulator(config) as simulator, TcpProxy(bucket.port) as proxy:
        run = BucketRun(tmp_path / "run", bucket, proxy.port, simulator, log)
        settled: set[tuple[str, str]] = set()
        requested, before, code, kill_at = Counter(), {}, -9, 0
        while code != 0:
            kill_at += 1
            process, puts = fork(run.command.folder, run.command.env, *run.arguments), 0

            def fate(method: str, _target: str, process=process, last=kill_at) -> str | None:
                nonlocal puts
                puts += method == "PUT"
                if method != "PUT" or puts < last:
                    return None
                process.kill()
                return cut

            proxy.fate = fate
            await asyncio.to_thread(process.join)
            code = process.exitcode
            assert code in (0, -9), (run.folder / "output").read_text()
            assert not settled & set(run.count_requests() - requested), "a sealed reading was requested again"
            now = await run.read_parts(monkeypatch)
            assert before.items() <= now.items(), "a part changed or vanished"
            settled, requested, before = run.list_settled(), run.count_requests(), now
        assert kill_at >= 4, "not every put was reached"
        assert count_captures(now) == Counter(
            (each.pair.campaign_id, each.pair.send_id) for each in simulator.population
        )


async def test_an_unavailable_store_ends_the_run_and_the_next_run_stores_the_parts(stores, tmp_path, monkeypatch):
    """Capturing continues without the store and the exit code is 5. The next run stores the parts without a request."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with (
        Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        run = BucketRun(tmp_path / "run", bucket, proxy.port, simulator, log)
        proxy.fate = lambda method, target: "before" if method == "PUT" and "captured_date" in target else None
        code, out, err = await run.command.run(*run.arguments, "--raw", "--json")
        assert code == 5, err
        assert "cannot be reached" in err
        assert json.loads(out)["books"]["pending"] == 0
        assert json.loads(out)["unstored_batches"] == 2
        assert await run.read_parts(monkeypatch) == {}
        requested = run.count_requests()
        proxy.fate = lambda _method, _target: None
        code, out, err = await run.command.run(*run.arguments, "--raw", "--json")
        assert code == 0, err
        assert run.count_requests() == requested
        assert len(count_captures(await run.read_parts(monkeypatch))) == PAIRS


async def test_a_run_starts_while_a_known_store_is_unavailable(stores, tmp_path, monkeypatch):
    """Captures are sealed while the bucket is unavailable, and stored once it is available again."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with (
        Simulator(SimulatorConfig(pairs=PAIRS, limit=10_000_000, api_key=KEY, log=log)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        run = BucketRun(tmp_path / "run", bucket, proxy.port, simulator, log)
        listed = run.folder / "p.csv"
        lines = listed.read_text().splitlines(keepends=True)
        listed.write_text("".join(lines[:6]))
        assert (await run.command.run(*run.arguments))[0] == 0
        listed.write_text("".join(lines))
        proxy.fate = lambda _method, _target: "before"
        code, out, err = await run.command.run(*run.arguments, "--json")
        assert code == 5, err
        assert json.loads(out)["books"]["pending"] == 0
        requested = run.count_requests()
        proxy.fate = lambda _method, _target: None
        assert (await run.command.run(*run.arguments))[0] == 0
        assert run.count_requests() == requested
        assert len(count_captures(await run.read_parts(monkeypatch))) == PAIRS


async def test_signals_end_a_run_while_the_store_hangs(stores, tmp_path):
    """The first signal lets requests in flight finish; the second ends the run at once, without an error report."""
    bucket, hanging = stores("moto"), asyncio.Event()
    async with (
        Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        run = BucketRun(tmp_path / "run", bucket, proxy.port, simulator, tmp_path / "log")

        def fate(method: str, target: str) -> str | None:
            if method == "GET" or "captured_date" not in target:
                return None
            hanging.set()
            return "hang"

        proxy.fate = fate
        process = run.command.start_warm(*run.arguments)
        await hanging.wait()
        process.terminate()
        await asyncio.to_thread(lambda: next(line for line in process.stderr if b"stop_requested" in line))
        process.terminate()
        err = (await asyncio.to_thread(process.communicate))[1].decode()
        assert (process.returncode, err) == (130, "harvester: interrupted; run the same command again to continue\n")


async def test_raw_responses_are_stored_unchanged(stores, tmp_path):
    """With --raw, a second dataset contains each response unchanged."""
    bucket, log = stores("moto"), tmp_path / "answers.ndjson"
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        run = BucketRun(tmp_path / "run", bucket, bucket.port, simulator, log)
        assert (await run.command.run(*run.arguments, "--raw"))[0] == 0
    place = run.url.removeprefix("s3://lake/")
    (raw,) = [data for name, data in bucket.read_objects().items() if name.startswith(f"{place}/raw_answers/")]
    rows = [json.loads(line) for line in zstandard.ZstdDecompressor().decompressobj().decompress(raw).splitlines()]
    assert {(row["campaign_id"], row["send_id"]) for row in rows} == {
        (each.pair.campaign_id, each.pair.send_id) for each in simulator.population
    }
    assert all(json.loads(row["answer"])["message"] == "success" for row in rows)


async def test_lists_and_the_latest_view_are_read_from_a_bucket(stores, tmp_path):
    """``run s3://…/pairs.csv`` and ``latest s3://…`` need no local copy."""
    bucket = stores("moto")
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        run = BucketRun(tmp_path / "run", bucket, bucket.port, simulator, tmp_path / "log")
        for name, value in bucket.env.items():
            run.command.env[name] = value
        with pytest.MonkeyPatch.context() as patch:
            listed = connect_to(patch, bucket, bucket.port)
            await ObjectStore(listed).create("p.csv", (run.folder / "p.csv").read_bytes())
        (run.folder / "p.csv").unlink()
        code, _, err = await run.command.run("plan", f"{listed}/p.csv")
        assert code == 0, err
        code, _, err = await run.command.run("run", f"{listed}/p.csv", *run.arguments[2:])
        assert code == 0, err
        with pytest.MonkeyPatch.context() as patch:
            connect_to(patch, bucket, bucket.port)
            await ObjectStore(run.url).create("send_analytics/copies/old/p.ndjson", b"not in the folder of a day")
        code, out, err = await run.command.run("latest", run.url)
        assert code == 0, err
        assert len({json.loads(line)["send_id"] for line in out.splitlines()}) == 5
        code, _, err = await run.command.run("plan", f"{listed}/missing.csv")
        assert (code, "missing.csv" in err, "Traceback" in err) == (2, True, False)
        code, _, err = await run.command.run("latest", f"{listed}/empty")
        assert (code, f"{listed}/empty contains no parts" in err) == (2, True)


async def test_a_run_never_deletes_an_object(stores, tmp_path):
    """A run only creates, reads and lists objects, so its credentials need no other permission."""
    bucket = stores("moto")
    async with (
        Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator,
        TcpProxy(bucket.port) as proxy,
    ):
        run = BucketRun(tmp_path / "run", bucket, proxy.port, simulator, tmp_path / "log")
        for _ in range(2):
            assert (await run.command.run(*run.arguments))[0] == 0
    assert {each.split(" ")[0] for each in proxy.requests} == {"GET", "PUT"}
    place = run.url.removeprefix("s3://lake/")
    listings = [each for each in proxy.requests if "list-type" in each]
    assert all(place in each for each in proxy.requests if each not in listings)
    assert all(f"prefix={place}" in each.replace("%2F", "/") for each in listings)


async def test_doctor_does_not_mark_a_bucket(stores, tmp_path, monkeypatch):
    """``doctor`` leaves one small object in a new bucket, but no marker, so any ledger can use the bucket."""
    bucket = stores("moto")
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        run = BucketRun(tmp_path / "run", bucket, bucket.port, simulator, tmp_path / "log")
        for _ in range(2):
            code, out, err = await run.command.run("doctor", "--endpoint", simulator.url, "-o", run.url)
            assert code == 0, out + err
            assert not await run.read_parts(monkeypatch)
        assert [path.name for path in run.folder.iterdir()] == ["p.csv"]
        assert (await run.command.run(*run.arguments))[0] == 0
        code, out, err = await run.command.run("doctor", *run.arguments[2:])
        assert code == 0, out + err
