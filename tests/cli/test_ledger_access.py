"""How commands find a ledger, and the folder beside it."""

import asyncio
import json
import os
from pathlib import Path

import click
import pytest
import structlog
from click.testing import CliRunner

from harvester.cli import ledger_access, main, options
from harvester.clock import SystemClock
from harvester.errors import SinkRefused, UsageError
from harvester.ledger import Ledger
from harvester.place import DatabaseUrl
from harvester.storage import FolderSink
from harvester.storage.marker import MARKER

DATABASE = DatabaseUrl("postgresql://h/d")


@pytest.mark.parametrize(
    ("out", "state", "location", "folder"),
    [
        (None, None, Path("harvest/.harvester/ledger.db"), "harvest/.harvester"),
        ("lake", None, Path("lake/.harvester/ledger.db"), "lake/.harvester"),
        ("s3://lake/a", None, Path(".harvester/s3-lake-a.db"), ".harvester"),
        ("s3://lake/a", Path("data/led.db"), Path("data/led.db"), "data"),
        (None, DATABASE, DATABASE, "harvest/.harvester"),
        ("lake", DATABASE, DATABASE, "lake/.harvester"),
        ("s3://lake/a", DATABASE, DATABASE, ".harvester"),
        ("-", DATABASE, DATABASE, ".harvester"),
    ],
)
def test_rejects_are_beside_the_file_or_where_it_would_be(out, state, location, folder):
    """A ledger in a database leaves its rejects in the folder that a file would be in."""
    assert ledger_access.get_location(out, state) == location
    assert ledger_access.get_rejects_folder(out, location) == Path(folder)


@click.command()
@options.state
def print_sources(state, state_file):
    """Print the values of both options."""
    click.echo(f"{state} {state_file}")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ((), "variable.db None"),
        (("--state", "postgresql://u:secret@h/d"), "postgresql://u@h/d None"),
        (("--state-file", "f"), "None f"),
    ],
)
def test_an_option_replaces_the_variable_of_the_other_one(monkeypatch, arguments, printed):
    """The command line comes before the environment, whichever of the two options it has."""
    monkeypatch.setenv("HARVESTER_STATE", "variable.db")
    assert CliRunner().invoke(print_sources, arguments).output == f"{printed}\n"


@click.command()
@ledger_access.ledger_command
def wait_for_server(location):
    """Log a warning and print a result, as a command does whose server was unavailable."""
    structlog.get_logger().warning("ledger_unavailable", reason=f"{location} is unavailable")
    click.echo("{}")


@pytest.mark.parametrize(
    ("arguments", "pace"),
    [
        (("--workspace", "eu"), 12.5),
        ((), 10),
        (("--max-rate", "40"), 12.5),
        (("--max-rate", "40", "--reserve", "0.4"), 15),
    ],
)
def test_plan_keeps_to_the_limits_of_the_configuration(arguments, pace, tmp_path, monkeypatch):
    """An estimate does not promise more than the service will do; of several workspaces, the strictest limits count."""
    monkeypatch.chdir(tmp_path)
    table = '[workspaces.{}]\nendpoint = "https://rest.fra-01.braze.eu"\nreserve = {}\nmax_rate = {}\n'
    Path("h.toml").write_text(table.format("eu", 0.5, 30) + table.format("us", 0.2, 10))
    Path("p.csv").write_text("workspace,campaign_id,send_id\neu,c,s\n")
    command = ["plan", "p.csv", "--config", "h.toml", "--limit", "90000", "--json", *arguments]
    assert json.loads(CliRunner().invoke(main, command).stdout)["pace"] == pace


def test_the_log_of_a_command_is_not_a_part_of_its_result():
    """A warning does not make standard output unusable for a script."""
    result = CliRunner().invoke(wait_for_server, ["--state", "x.db"])
    assert result.stdout == "{}\n"
    assert "event=ledger_unavailable" in result.stderr


def test_two_sources_of_the_same_kind_are_refused(monkeypatch):
    """One of them would be ignored."""
    monkeypatch.setenv("HARVESTER_STATE", "variable.db")
    monkeypatch.setenv("HARVESTER_STATE_FILE", "f")
    for arguments in ((), ("--state", "a", "--state-file", "b")):
        problem = CliRunner().invoke(print_sources, arguments).exception
        assert isinstance(problem, UsageError)
        assert "set either --state or --state-file" in str(problem)


async def test_two_processes_may_start_at_the_same_time(tmp_path):
    """One finds no ledger; before it looks for the place's marker, the other has created ledger and marker."""
    place, location = tmp_path / "out", tmp_path / "ledger.db"
    async with await Ledger.open(tmp_path / "other.db", clock=SystemClock()) as other:
        await FolderSink(place).attach(other.ledger_id)
    marker = place / MARKER
    content = marker.read_bytes()
    with pytest.raises(SinkRefused, match="there is no ledger at"):
        await ledger_access.check_new_ledger(location, {str(place): ()})
    marker.unlink()
    os.mkfifo(marker)
    checking = asyncio.create_task(ledger_access.check_new_ledger(location, {str(place): ()}))
    with await asyncio.to_thread(marker.open, "wb") as file:  # waits until the marker is being read
        async with await Ledger.open(location, clock=SystemClock()):
            file.write(content)
    await checking
