"""Every harvester command in the README and docs works as written; this file or another test runs it.

This file runs only the SQL queries that read ``latest.parquet``, on pages with commands that it runs.
"""

import asyncio
import json
import re
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from harvester.settings import load
from harvester.simulator import Simulator, SimulatorConfig
from tests.commands.test_capture import write_pairs
from tests.conftest import read_rows
from tests.support.currents import create_event, write_events
from tests.support.object_stores import BUCKET, s3
from tests.support.processes import free_port
from tests.support.secret_canary import KEY

TOP = Path(__file__).parent.parent.parent
PAGES = ("README.md", *(str(page.relative_to(TOP)) for page in sorted((TOP / "docs").glob("*.md"))))

ELSEWHERE = {
    r"python3 -m venv .*harvester demo": "tests/commands/test_capture.py::test_the_demo_runs_twice_and_shows_the_data",
    r"python3 -m venv .*pytest": "tests/system/test_supply_chain.py",
    r"harvester serve --config harvester.toml": "tests/system/test_compose.py",
    r"redis-cli XADD|rabbitmqadmin publish|aws sqs send-message": "tests/conformance/test_brokers.py",
    r"pip install -c locks/constraints.txt": "tests/system/test_supply_chain.py",
    r"_HARVESTER_COMPLETE=|^eval TEXT": "tests/cli/test_help.py::test_the_documented_variable_prints_the",
    r"harvester schema |harvester latest harvest .*(duckdb|since)": "tests/system/test_loading.py",
    r"zstd -dc .*psql": "benchmarks/loading/check_postgresql.py",
    r"helm (install|upgrade)": "tests/system/test_helm_chart.py",
    r"export OTEL_": "tests/observability/test_traces.py",
    r"postgresql://": "tests/cli/test_postgresql.py",
    r"simulate --port|^\(sed TEXT|rehearsal\.toml": "tests/system/test_documentation.py::test_several_stand_ins_work",
}
"""Commands that need an installation, a server or files of their own, and what runs the same."""

VENDORS = (
    "sudo -u postgres",
    "gcloud",
    "az",
    "aws",
    "bq",
    "docker build",
    "kubectl",
    "mc",
    "nats",
    "rabbitmqadmin",
    "cat",
    "title:",
    "expression:",
    "resource.",
    "api.",
)
"""Commands of other vendors' tools, which need an account or a server of theirs. No test runs them."""


def blocks(page: str, language: str) -> list[str]:
    """Get the fenced blocks of a page in one language, without their indentation."""
    matches = re.findall(rf"^( *)```{language}\n(.*?)^ *```", (TOP / page).read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in matches]


def commands(page: str) -> list[str]:
    """Get the shell commands of a page, each on one line."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line for each in lines.splitlines() if (line := each.partition("  #")[0].strip()) and line[0] != "#"]


def run_by_this_test(command: str) -> bool:
    """Check that this file runs a command: no other test does, and it needs no other vendor's tool."""
    elsewhere = any(re.search(pattern, command) for pattern in ELSEWHERE)
    return not elsewhere and re.match(r"(\w+=\S+ )*(harvester|export) ", command) is not None


def test_every_documented_command_is_run_by_a_test():
    """Every documented command is run by a test, except commands of other vendors' tools."""
    for page in PAGES:
        text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
        text = re.sub(r"'[^']*'|\"[^\"]*\"", "TEXT", text)
        for line in text.splitlines():
            unrun = not line.strip() or line.startswith((*VENDORS, "#", ". .venv", " ", "END"))
            elsewhere = any(re.search(pattern, line) for pattern in ELSEWHERE)
            assert unrun or elsewhere or run_by_this_test(line), f"{page}: {line}"
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert name in (TOP / file).read_text(), place


class Shell:
    """Runs the commands of one page in one folder, one after the other, against a stand-in API."""

    def __init__(self, harvester, endpoint: str) -> None:
        """Run commands in the folder of ``harvester``."""
        self.harvester = harvester
        self.endpoint = endpoint
        self.background: list = []

    async def run(self, command: str) -> None:
        """Run a command to its end; leave the stand-in API of ``harvester simulate`` running."""
        words = shlex.split(command.replace("https://rest.fra-01.braze.eu", self.endpoint))
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.harvester.env[name] = KEY if name == "BRAZE_API_KEY" else value
            return
        previous = dict(self.harvester.env)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            self.harvester.env[name] = value
        if words[1] == "simulate":
            self.port = free_port()
            self.background.append(self.harvester.start_warm(*words[1:], "--port", str(self.port), "--pairs", "20"))
            while not (self.harvester.folder / "pairs.csv").exists():
                await asyncio.sleep(0.05)
        else:
            words = [word.replace("127.0.0.1:8765", f"127.0.0.1:{getattr(self, 'port', 0)}") for word in words]
            code, out, err = await self.harvester.run(*words[1:])
            assert code == 0, f"{command}\n{out}{err}"
        self.harvester.env = previous

    def close(self) -> None:
        """Stop the background processes."""
        for process in self.background:
            process.terminate()
            process.communicate()


@pytest.mark.parametrize("page", PAGES)
async def test_the_commands_of_a_page_work_in_order(harvester, stores, tmp_path, page):
    """One shell and one folder serve the whole page, and the SQL queries return rows."""
    page_commands = [command for command in commands(page) if run_by_this_test(command)]
    if not page_commands:
        return
    async with Simulator(SimulatorConfig(pairs=3, limit=1_000_000, api_key=KEY)) as simulator:
        write_pairs(tmp_path / "sends.csv", simulator)
        if page == "docs/fleet.md":
            (tmp_path / "harvester.toml").write_text(f'[workspaces.eu]\nendpoint = "{simulator.url}"\n')
            harvester.env["HARVESTER_WORKSPACES__EU__API_KEY"] = KEY
        else:
            harvester.env["BRAZE_ENDPOINT"] = simulator.url
        pair, now = simulator.population[0].pair, int(datetime.now(UTC).timestamp())
        currents = write_events(tmp_path / "currents", [create_event(pair.campaign_id, pair.send_id, now)])
        if any("s3://" in command for command in page_commands):
            moto = stores("moto")
            harvester.env |= moto.env
            objects = {"lists/sends.csv": tmp_path / "sends.csv", str(currents.relative_to(tmp_path)): currents}
            for key, file in objects.items():
                s3(moto.port).put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
        shell = Shell(harvester, simulator.url)
        try:
            for command in page_commands:
                await shell.run(command)
        finally:
            shell.close()
        for query in blocks(page, "sql"):
            if "latest.parquet" in query:
                rows = duckdb.sql(query.replace("latest.parquet", str(tmp_path / "latest.parquet"))).fetchall()
                assert rows


async def test_several_stand_ins_work(harvester, tmp_path):
    """The configuration page's commands for two stand-ins, one per workspace, capture the sends of both."""
    section = (
        (TOP / "docs" / "configuration.md").read_text().partition("\n### Several stand-ins\n")[2].partition("\n## ")[0]
    )
    for port in ("8765", "8766"):
        section = section.replace(port, str(free_port()))
    [settings] = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    (tmp_path / "rehearsal.toml").write_text(settings)
    stand_ins = []
    try:
        for line in "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["harvester", "simulate"]:
                stand_ins.append(harvester.start_warm(*words[1:], "--pairs", "20"))
                async with asyncio.timeout(60):
                    listed = tmp_path / words[-1]
                    while not listed.exists() or listed.read_text().count("\n") < 21:
                        await asyncio.sleep(0.05)
            elif words[0] == "harvester":
                code, out, err = await harvester.run(*words[1:])
                assert code == 0, f"{line}\n{out}{err}"
            else:
                await asyncio.to_thread(subprocess.run, ["sh", "-ec", line], cwd=tmp_path, check=True)
    finally:
        for each in stand_ins:
            each.terminate()
            each.communicate()
    assert "accepted   40 pairs" in out
    assert {row["workspace"] for row in read_rows(tmp_path / "harvest")} == {"eu", "us"}


@pytest.mark.parametrize("page", PAGES)
def test_the_files_and_messages_of_a_page_are_valid(tmp_path, page):
    """Each configuration loads, and each message has version 1."""
    for number, toml_block in enumerate(blocks(page, "toml")):
        table = re.sub(r'"/run/secrets/(\w+)"', f'"{tmp_path}/\\1"', toml_block)
        for name in re.findall(rf'api_key_dir = "{tmp_path}/(\w+)"', table):
            (tmp_path / name).mkdir()
        for name in re.findall(rf'_file = "{tmp_path}/(\w+)"', table):
            (tmp_path / name).write_text("amqp://localhost" if "url" in name else "a-key-of-the-page")
        if "[workspaces." not in table:
            table += '[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu"\n'
        (tmp_path / f"{number}.toml").write_text(table)
        load(tmp_path / f"{number}.toml", {}, {})
    for block in blocks(page, "json"):
        for line in block.splitlines():
            if line.startswith('{"version"'):
                assert json.loads(line)["version"] == 1
