"""Commands that need no Braze: demo and simulate."""

import asyncio
import csv
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, show
from harvester.cli.capture import captured

if TYPE_CHECKING:
    from harvester.run import Summary
    from harvester.simulator import Simulator


@click.command()
@click.option("-o", "--out", default="./demo-out", show_default=True, help="Folder for the parts.")
@click.option("--pairs", default=3000, show_default=True, help="How many sends the stand-in has.")
def demo(out: str, pairs: int) -> None:
    """Harvest from a stand-in API on this machine: no account, no key, no server.

    \b
    Example:
      harvester demo && harvester demo   # the second time nothing is left to ask
    """
    from harvester.settings import Settings, Workspace
    from harvester.simulator import Simulator, SimulatorConfig
    from harvester.tables import look

    options.set_up_logs({"log_level": "error"})
    folder = Path(out)
    listed, key = folder / "pairs.csv", folder / "demo.key"
    folder.mkdir(parents=True, exist_ok=True)
    config = SimulatorConfig(
        pairs=pairs, limit=25_000, window_seconds=60, fault_rate=0.01, latency_seconds=0.005, neighbour_share=0.1
    )
    key.write_text(config.api_key)
    click.echo(
        f"a stand-in for the Braze API answers for {pairs} sends, 1 % of its answers broken on purpose", err=True
    )

    async def show_it() -> "Summary":
        async with Simulator(config) as simulator:
            if not listed.exists():
                write_pairs(listed, simulator)
            settings = Settings(workspaces={"default": Workspace(endpoint=simulator.url, api_key_file=key)})
            return await captured(settings, (str(listed),), out, None)

    done = asyncio.run(show_it())
    show.summary(done)
    query, table = look(folder)
    click.echo(f"\n{query};\n{table}")
    sys.exit(done.exit_code)


@click.command()
@click.option("--port", default=8765, show_default=True, help="Port on 127.0.0.1.")
@click.option("--seed", default=1, show_default=True, help="All it answers follows from this and the time.")
@click.option("--pairs", default=5000, show_default=True, help="How many sends exist.")
@click.option("--write-pairs", "listed", type=click.Path(path_type=Path), help="Write the sends that exist as CSV.")
@click.option("--limit", default=250_000, show_default=True, help="Calls per window.")
@click.option("--window-seconds", default=3600.0, show_default=True, help="Length of a window.")
@click.option("--fault-rate", default=0.0, show_default=True, help="Share of calls that meet a fault, 0 to 1.")
@click.option("--neighbour-share", default=0.0, show_default=True, help="Share of the budget that others spend.")
@click.option("--latency-seconds", default=0.0, show_default=True, help="Time each answer takes.")
@click.option("--log", type=click.Path(path_type=Path), help="Append every answer to this NDJSON file.")
def simulate(listed: Path | None, **given: Any) -> None:
    """Run the stand-in API by itself; its key is demo-key.

    \b
    Example:
      harvester simulate --write-pairs pairs.csv --fault-rate 0.05 &
      BRAZE_API_KEY=demo-key harvester run pairs.csv --endpoint http://127.0.0.1:8765
    """
    from harvester.simulator import Simulator, SimulatorConfig

    async def serve() -> None:
        async with Simulator(SimulatorConfig(**given)) as simulator:
            if listed is not None:
                write_pairs(listed, simulator)
            click.echo(f"serving {given['pairs']} sends on {simulator.url}; Ctrl-C ends it", err=True)
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def write_pairs(path: Path, simulator: "Simulator") -> None:
    """Write the sends that exist, as a user's own list would have them."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["campaign_id", "send_id", "sent_at"])
        for each in simulator.population:
            assert each.sent_at is not None
            sent_at = datetime.fromtimestamp(each.sent_at, UTC).isoformat()
            writer.writerow([each.pair.campaign_id, each.pair.send_id, sent_at])
