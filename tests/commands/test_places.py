"""Workspaces with folders of their own, as a user runs them."""

import asyncio
import csv
import json
import signal
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harvester.clock import SystemClock
from harvester.commands.doctor import run_checks
from harvester.settings import Settings, Workspace
from harvester.simulator import Simulator, SimulatorConfig
from tests.conftest import read_rows
from tests.support.faulty_server import read_request, serve_script
from tests.support.ledger_file import query
from tests.support.secret_canary import KEY

RUN = ("run", "list.csv", "--config", "h.toml")


@asynccontextmanager
async def two_clients(harvester, folder: Path):
    """Serve six sends of each of two clients; each has a folder, which the list and the configuration name."""
    async with Simulator(SimulatorConfig(pairs=12, limit=10_000_000, api_key=KEY)) as simulator:
        tables = "".join(f'[workspaces.{name}]\nout = "client-{name}"\n' for name in "ab")
        (folder / "h.toml").write_text(
            f'[workspace_defaults]\nendpoint = "{simulator.url}"\napi_key = "{KEY}"\n{tables}'
        )
        with (folder / "list.csv").open("w", newline="") as file:
            rows = [("ab"[number % 2], *each.pair[1:]) for number, each in enumerate(simulator.population)]
            csv.writer(file).writerows([("workspace", "campaign_id", "send_id"), *rows])
        yield simulator


def count_captures(folder: Path) -> Counter:
    """Count the captures of each workspace in the rows of a folder."""
    return Counter(row["workspace"] for row in read_rows(folder) if row["level"] == "capture")


async def test_a_run_that_is_killed_between_two_uploads_stores_both_parts_once(harvester, tmp_path):
    """One folder takes its part, the other cannot; the next run stores what was sealed, without a request."""
    folder_a, folder_b = tmp_path / "client-a", tmp_path / "client-b"
    (folder_b / "send_analytics").mkdir(parents=True)
    in_the_way = [
        folder_b / f"send_analytics/captured_date={(datetime.now(UTC) + timedelta(n)).date()}" for n in range(-1, 2)
    ]
    for each in in_the_way:
        each.write_text("a file in place of the folder of the parts")
    async with two_clients(harvester, tmp_path) as simulator:
        run = harvester.start_warm(*RUN)
        ledger = tmp_path / "harvest/.harvester/ledger.db"
        while not list(folder_a.glob("send_analytics/*/*.zst")) or query(ledger, "SELECT count(*) FROM outcome") != [
            (12,)
        ]:
            assert run.returncode is None
            await asyncio.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        await asyncio.to_thread(run.communicate)
        for each in in_the_way:
            each.unlink()
        requests = simulator.responses.total()
        code, _, err = await harvester.run(*RUN)
        assert (code, simulator.responses.total() - requests) == (0, 0), err
    assert (count_captures(folder_a), count_captures(folder_b)) == (Counter(a=6), Counter(b=6))


async def test_commands_know_the_places_of_workspaces(harvester, tmp_path):
    """Parts name their place, doctor checks each, and the ledger is rebuilt from all of them together."""
    async with two_clients(harvester, tmp_path) as simulator:
        assert (await harvester.run(*RUN))[0] == 0
        listed = [
            (await harvester.run("parts", "--config", "h.toml", *more))[1] for more in ((), ("--place", "client-b"))
        ]
        places = [[json.loads(line)["place"] for line in out.splitlines()] for out in listed]
        assert [sorted(each) for each in places] == [
            [str(tmp_path / "client-a"), str(tmp_path / "client-b")], [str(tmp_path / "client-b")]
        ]  # fmt: skip
        _, out, _ = await harvester.run("doctor", "--config", "h.toml")
        assert 'client-a of workspace "a": can be written' in out
        assert 'client-b of workspace "b": no stored part of this ledger is missing: 1 compared' in out
        (tmp_path / "harvest/.harvester/ledger.db").unlink()
        code, _, err = await harvester.run(*RUN)
        assert (code, "was captured with another ledger" in err, '(the place of workspace "a")' in err) == (
            5,
            True,
            True,
        )
        rebuild = ("ledger", "rebuild", "client-a", "client-b", "--state", "harvest/.harvester/ledger.db")
        code, _, err = await harvester.run(*rebuild)
        assert (code, "12 pairs" in err) == (0, True), err
        requests = simulator.responses.total()
        code, _, err = await harvester.run("run", "--config", "h.toml")
        assert (code, simulator.responses.total() - requests) == (0, 0), err


async def test_the_place_of_another_ledger_is_refused_by_the_name_of_its_workspace(harvester, tmp_path):
    """Nothing is requested, also for the workspaces whose places are right."""
    async with two_clients(harvester, tmp_path) as simulator:
        assert (await harvester.run(*RUN, "--state", "other.db"))[0] == 0
        (tmp_path / "client-a").rename(tmp_path / "client-c")
        requests = simulator.responses.total()
        (tmp_path / "list.csv").write_text("workspace,campaign_id,send_id\na,c,s\n")
        assert (await harvester.run("enqueue", "list.csv", "--state", "ledger.db", "--workspace", "a"))[0] == 0
        code, _, err = await harvester.run(*RUN, "--state", "ledger.db")
        assert (code, simulator.responses.total()) == (5, requests)
        assert "client-b was captured with another ledger" in err
        assert '(the place of workspace "b")' in err


async def test_doctor_checks_workspaces_and_places_at_once_and_keeps_their_order(tmp_path):
    """Hundreds of workspaces take seconds, not minutes: here, no endpoint responds before all have a request."""
    names = [f"w{number}" for number in range(4)]
    together = asyncio.Barrier(len(names))

    async def respond_together(reader, writer, server):
        await read_request(reader, server)
        await together.wait()
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with serve_script(respond_together) as server, asyncio.timeout(20):
        workspaces = {
            name: Workspace(endpoint=server.url, api_key=KEY + name, out=str(tmp_path / name)) for name in names
        }
        found = await run_checks(Settings(workspaces=workspaces), ledger=tmp_path / "ledger.db", clock=SystemClock())
    assert [each.workspace for each in found if each.check == "endpoint"] == names
    assert [each.text.split('"')[1] for each in found if each.check == "place"] == names
