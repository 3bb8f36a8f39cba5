"""What each command imports. Imports take most of the time and memory of a start."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from harvester.simulator import Simulator, SimulatorConfig
from tests.support.secret_canary import KEY

LARGE = {"aiohttp", "aiohttp.web", "duckdb", "obstore", "opentelemetry", "prometheus_client", "pydantic", "rich",
         "sqlalchemy", "sqlalchemy.orm", "structlog", "uvloop"}  # fmt: skip
LEDGER = {"sqlalchemy", "structlog"}
IMPORTS = {
    "--help": set(),
    "schema --for duckdb": set(),
    "run one.csv --endpoint {url}": LEDGER | {"aiohttp", "pydantic", "uvloop"},
    "enqueue one.csv": LEDGER,
    "plan one.csv": LEDGER,
    "status": LEDGER,
    "latest harvest -o latest.csv": {"duckdb"},
}
"""The large libraries that each command imports while it runs."""

MODULES_OF_A_RUN = 468
"""The limit for the modules of a run outside the standard library. There were 463 when this was written."""

RUN_EACH = """
import json, os, sys
from harvester.cli import main
for command in sys.argv[1:]:
    if not os.fork():  # each command starts with the modules of the command line alone
        with open(os.devnull, "w") as sys.stdout, open(os.devnull, "w") as sys.stderr:
            try:
                main(command.split())
            except SystemExit as end:
                code = end.code
        imported = [name for name, module in sys.modules.items() if module]
        os.write(1, (json.dumps([command, code, imported]) + "\\n").encode())
        os._exit(0)
    os.wait()
"""


@pytest.fixture
async def modules(tmp_path):
    """Run the commands; returns the modules that each of them has imported at its end."""
    async with Simulator(SimulatorConfig(pairs=1, api_key=KEY)) as simulator:
        pair = simulator.population[0].pair
        (tmp_path / "one.csv").write_text(f"campaign_id,send_id\n{pair.campaign_id},{pair.send_id}\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUN_EACH, *(command.format(url=simulator.url) for command in IMPORTS),
            cwd=tmp_path, env=os.environ | {"BRAZE_API_KEY": KEY, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
    ended = [json.loads(line) for line in out.splitlines()]
    assert [code for _, code, _ in ended] == [0] * len(IMPORTS)
    return {command: set(names) for command, (_, _, names) in zip(IMPORTS, ended, strict=True)}


async def test_a_command_imports_only_what_it_needs(modules):
    """A command starts without the large libraries that it does not use, and a run does not import too many modules."""
    assert {command: names & LARGE for command, names in modules.items()} == IMPORTS
    run = next(names for command, names in modules.items() if command.startswith("run"))
    assert len([name for name in run if name.partition(".")[0] not in sys.stdlib_module_names]) <= MODULES_OF_A_RUN
