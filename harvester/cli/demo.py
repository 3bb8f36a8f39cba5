"""The command demo: a capture from a stand-in API, without an account."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import options, output, startup
from harvester.cli.run import run_capture
from harvester.cli.simulate import write_pairs
from harvester.cli.summary import print_summary
from harvester.model import DATASET
from harvester.place import parse_local_path

if TYPE_CHECKING:
    from harvester.commands.summary import Summary


@click.command()
@click.option("-o", "--out", default="./demo-out", show_default=True, help="The folder for all output.")
@click.option("--pairs", default=3000, show_default=True, help="The number of sends.")
@options.verbose
def demo(out: str, pairs: int, *, verbose: bool) -> None:
    """Capture sends from a stand-in API, without an account.

    \b
    Example:
      harvester demo && harvester demo   # the second run finds nothing left to request
    """
    from harvester.datasets import build_latest_query, run_latest_query

    output.check_stdout()  # now, since the capture takes a while
    startup.set_up_logs({}, level="error")
    folder = parse_local_path(out, "--out")
    folder.mkdir(parents=True, exist_ok=True)
    stand_in = f"A stand-in for the Braze API serves {output.plural(pairs, 'send')}"
    output.print_lines([f"{stand_in}; 1 % of its responses are broken on purpose.", f"Output: {out}"], err=True)
    done = startup.run_async(_capture(out, folder / "pairs.csv", pairs))
    print_summary(done, verbose=verbose)
    if done.problem is not None:
        raise done.problem
    click.echo(f"\n{build_latest_query(out)}\n{run_latest_query(out)}")
    not_found = shutil.which("harvester") is None  # as in an environment that is not activated
    program = sys.argv[0] if not_found and Path(sys.argv[0]).name == "harvester" else "harvester"
    output.print_lines(
        [
            f"Run these statements in DuckDB to read the parts in {folder / DATASET}.",
            "A send that used several channels counts in each of them.",
            "Each reading is a snapshot; never sum over readings.",
            f"To write the latest rows to a file: {program} latest {folder} -o latest.parquet",
        ]
    )
    sys.exit(done.exit_code)


async def _capture(out: str, listed: Path, pairs: int) -> "Summary":
    """Start the stand-in API, and capture all its sends."""
    from harvester.settings import Settings, Workspace
    from harvester.simulator import Simulator, SimulatorConfig

    config = SimulatorConfig(
        pairs=pairs, limit=25_000, window_seconds=60, fault_rate=0.01, latency_seconds=0.005, neighbour_share=0.1
    )
    async with Simulator(config) as simulator:
        if not listed.exists():  # noqa: ASYNC240 - nothing runs beside it
            write_pairs(listed, simulator)
        workspace = Workspace.model_validate({"endpoint": simulator.url, "api_key": config.api_key})
        return await run_capture(Settings(workspaces={"default": workspace}, out=out), (str(listed),))
