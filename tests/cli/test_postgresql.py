"""The commands on a ledger in PostgreSQL: each does what it does with a file, and none shows the password."""

import json

import pytest

from harvester.simulator import Simulator, SimulatorConfig
from tests.commands.test_capture import write_pairs
from tests.support.ledger_file import count_rows
from tests.support.secret_canary import KEY

BAD_LINE = "campaign_id,send_id\nc,\n"


@pytest.fixture
def on_database(harvester, tmp_path, database_url):
    """The command with a ledger in a new database, whose URL with the password is in a file."""
    (tmp_path / "ledger.key").write_text(database_url.url)
    harvester.env["HARVESTER_STATE_FILE"] = "ledger.key"
    return harvester


async def run(harvester, *arguments: str, code: int = 0) -> str:
    """Run a command, and return what it printed to stdout and stderr."""
    found, out, err = await harvester.run(*arguments)
    assert found == code, out + err
    return out + err


async def test_each_command_works_on_a_database(on_database, tmp_path, database_url):
    """Two runs share it, the others read and change it, and it can be copied to a file and rebuilt."""
    async with Simulator(SimulatorConfig(pairs=30, limit=1_000_000, api_key=KEY)) as simulator:
        on_database.env["BRAZE_ENDPOINT"] = simulator.url
        write_pairs(tmp_path / "sends.csv", simulator)
        (tmp_path / "bad.csv").write_text(BAD_LINE)
        planned = await run(on_database, "plan", "sends.csv")
        assert "30 new, 0 already in the ledger" in planned
        assert "can be created" in await run(on_database, "doctor")
        assert count_rows(database_url) == {}  # neither of them created it
        await run(on_database, "run", "sends.csv")
        requests = simulator.responses.total()
        await run(on_database, "serve", "--until-idle", "--web-port", "0")
        await run(on_database, "run")
        assert simulator.responses.total() == requests
        status = await run(on_database, "status", "--json")
        assert "0 new, 30 already in the ledger" in await run(on_database, "plan", "sends.csv")
        assert "can be read and written" in await run(on_database, "doctor")
        assert "30 of 30 sends" in await run(on_database, "audit", "sends.csv")
        assert len((await run(on_database, "parts")).splitlines()) == 1
        pair = simulator.population[0].pair
        assert "captured" in await run(on_database, "show", pair.campaign_id, pair.send_id)
        assert "see harvest/.harvester/rejects.ndjson" in await run(on_database, "enqueue", "bad.csv", code=3)
        assert "back it up with pg_dump" in await run(on_database, "ledger", "backup", "copy.db", code=2)
        assert "does not record whether it agrees with Braze's" in await run(on_database, "status")
        assert "(@FILE in FROM)" in await run(on_database, "ledger", "copy", "@missing", "copy.db", code=2)
        await run(on_database, "ledger", "copy", "@ledger.key", "copy.db")
        del on_database.env["HARVESTER_STATE_FILE"]
        copied = await run(on_database, "status", "--state", "copy.db", "--json")
        assert json.loads(copied) == json.loads(status)
        books = json.loads(status)["books"]
        assert (books["balanced"], books["accepted"], sum(books["captured"].values())) == (True, 30, 30)


async def test_commands_on_a_database_without_a_ledger_create_nothing_but_where_they_should(
    on_database, tmp_path, database_url
):
    """Commands that only read say that there is no ledger; one that is rebuilt there continues the parts."""
    on_database.env["BRAZE_ENDPOINT"] = "http://127.0.0.1:1"
    for command in (("status",), ("show", "s"), ("requeue", "--outcome", "expired"), ("run",)):
        assert "no ledger" in await run(on_database, *command, code=2)
    assert count_rows(database_url) == {}
    async with Simulator(SimulatorConfig(pairs=3, limit=1_000_000, api_key=KEY)) as simulator:
        on_database.env["BRAZE_ENDPOINT"] = simulator.url
        write_pairs(tmp_path / "sends.csv", simulator)
        await run(on_database, "run", "sends.csv", "--state", "ledger.db")
        requests = simulator.responses.total()
        assert "was captured with another ledger" in await run(on_database, "run", "sends.csv", code=5)
        assert "3 pairs" in await run(on_database, "ledger", "rebuild", "harvest")
        await run(on_database, "run", "sends.csv")
        assert simulator.responses.total() == requests


async def test_the_password_is_never_shown(on_database, tmp_path, postgresql):
    """Errors of the server and of the client name the database without it; the fixture searches all output."""
    url = postgresql.url("missing", port=postgresql.port)
    (tmp_path / "ledger.key").write_text(url.url)
    assert f"{url}" in await run(on_database, "status", code=5)
    (tmp_path / "ledger.key").write_text(url.url.replace("@", "-wrong@"))
    refused = await run(on_database, "status", code=5)
    assert f"{url}" in refused
    assert "write each of % / ? # @ in the password as %25" in refused
    (tmp_path / "ledger.key").write_text(url.url.replace("@", "%-wrong@"))
    assert "write each of % / ? # @ in the password as %25" in await run(on_database, "status", code=2)


@pytest.mark.long
async def test_doctor_reports_a_database_that_can_only_be_read(on_database, tmp_path, postgresql):
    """Commands that write would wait for it. It is a standby, or its disk is full and it was set to read-only."""
    on_database.env["BRAZE_ENDPOINT"] = "http://127.0.0.1:1"
    with postgresql.database() as name:
        (tmp_path / "ledger.key").write_text(postgresql.url(name).url)
        (tmp_path / "bad.csv").write_text(BAD_LINE)
        await run(on_database, "enqueue", "bad.csv", code=3)
        read_only = "SET default_transaction_read_only = on", "RESET default_transaction_read_only"
        with postgresql.altered(name, *read_only):
            assert "cannot execute UPDATE in a read-only transaction" in await run(on_database, "doctor", code=2)
            assert "accepted   0" in await run(on_database, "status")
