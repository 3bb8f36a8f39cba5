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
from harvester.errors import UsageError
from harvester.model import DATASET
from harvester.place import parse_local_path

if TYPE_CHECKING:
    from harvester.commands.capture import Summary
    from harvester.simulator import Simulator


@click.command()
@click.option("-o", "--out", default="./demo-out", show_default=True, help="Folder for all that it writes.")
@click.option("--pairs", default=3000, show_default=True, help="How many sends the stand-in has.")
def demo(out: str, pairs: int) -> None:
    """Harvest from a stand-in API here: no account, no key, no server.

    \b
    Example:
      harvester demo && harvester demo   # the second time nothing is left to ask
    """
    from harvester.datasets import build_latest_query, run_latest_query
    from harvester.settings import Settings, Workspace
    from harvester.simulator import Simulator, SimulatorConfig

    options.set_up_logs({"log_level": "error"})
    folder = parse_local_path(out, "--out")
    listed = folder / "pairs.csv"
    folder.mkdir(parents=True, exist_ok=True)
    config = SimulatorConfig(
        pairs=pairs, limit=25_000, window_seconds=60, fault_rate=0.01, latency_seconds=0.005, neighbour_share=0.1
    )
    click.echo(
        f"a stand-in for the Braze API answers for {show.many(pairs, 'send')}, 1 % of its answers broken on purpose\n"
        f"all that is written goes to {out}",
        err=True,
    )

    async def show_it() -> "Summary":
        async with Simulator(config) as simulator:
            if not listed.exists():
                write_pairs(listed, simulator)
            workspace = Workspace.model_validate({"endpoint": simulator.url, "api_key": config.api_key})
            return await captured(Settings(workspaces={"default": workspace}, out=out), (str(listed),))

    done = options.awaited(show_it())
    show.summary(done)
    if done.problem is not None:
        raise done.problem
    click.echo(
        f"\n{build_latest_query(out)}\n{run_latest_query(out)}\n"
        f"Run these statements in DuckDB to read the parts in {folder / DATASET}.\n"
        f"Each reading is a snapshot; never sum over readings.\nTo export the same rows: harvester latest {folder}"
    )
    sys.exit(done.exit_code)


def _list_faults(context: click.Context, option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    """Print the faults and end."""
    del option
    if value:
        from harvester.simulator.faults import describe_faults

        click.echo(describe_faults())
        context.exit()


_SHARE = click.FloatRange(0, 1)


@click.command()
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="Port on 127.0.0.1.")
@click.option("--seed", default=1, show_default=True, help="All it answers follows from this, the day and the time.")
@click.option("--pairs", default=5000, show_default=True, type=click.IntRange(1), help="How many sends exist.")
@click.option("--write-pairs", "listed", type=options.LocalPath(), help="Write the sends that exist as CSV.")
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The day by which all were sent; name it to go on with a list written earlier  [default: today]",
)
@click.option(
    "--unknown-pairs",
    type=click.Choice(["zero", "empty"]),
    default="zero",
    show_default=True,
    help="Answer for unknown and expired sends with days of zeros, or without days; which one Braze does is not known.",
)
@click.option("--limit", default=250_000, show_default=True, type=click.IntRange(0), help="Calls per window.")
@click.option(
    "--window-seconds", default=3600.0, show_default=True, type=click.FloatRange(1), help="Length of a window."
)
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Let its clock run so many times as fast, so that sends expire sooner. A client keeps its own time.",
)
@click.option(
    "--neighbour",
    type=click.Choice(["none", "steady", "bursty", "campaign"]),
    default="steady",
    show_default=True,
    help="How others spend their share: evenly, in six bursts a window, or late and all at once.",
)
@click.option(
    "--neighbour-share", default=0.0, show_default=True, type=_SHARE, help="Share of every window that others spend."
)
@click.option("--fault-rate", default=0.0, show_default=True, type=_SHARE, help="Share of calls that meet a fault.")
@click.option("--fault", "faults", multiple=True, help="Meet this fault alone; again for more.")
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="List the faults and end.",
)
@click.option(
    "--latency-seconds",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Time each answer takes, by your clock.",
)
@click.option("--log", type=options.LocalPath(), help="Append every answer to this NDJSON file, before it leaves.")
def simulate(listed: Path | None, speed: float, day: datetime | None, faults: tuple[str, ...], **given: Any) -> None:
    """Run the stand-in API by itself.

    Its key is demo-key, and forbidden-key lacks the permission. A send id may ask for a fault: fault-503 anywhere in
    it meets one every time, fault-503x2 the first two times.

    \b
    Examples:
      harvester simulate --write-pairs pairs.csv --fault-rate 0.05 &
      BRAZE_API_KEY=demo-key harvester run pairs.csv --endpoint http://127.0.0.1:8765
      harvester simulate --window-seconds 60 --limit 4000 --neighbour campaign --neighbour-share 0.5
      harvester simulate --speed 14400   # a day passes in six seconds
    """
    from harvester.clock import SystemClock
    from harvester.simulator import Simulator, SimulatorConfig
    from harvester.simulator.fast_clock import FastClock

    if faults:
        given["faults"] = faults
        if not given["fault_rate"]:
            raise UsageError("say how many calls meet these faults, such as --fault-rate 0.05")
    config = SimulatorConfig(day=day.date() if day else None, **given)
    simulator = Simulator(config, FastClock(SystemClock(), speed))

    async def serve() -> None:
        async with simulator:
            if listed is not None:
                write_pairs(listed, simulator)
            again = f"--day {simulator.day} goes on with them"
            click.echo(
                f"serving {show.many(config.pairs, 'send')} on {simulator.url}; Ctrl-C ends it, {again}", err=True
            )
            await asyncio.Event().wait()

    try:
        options.awaited(serve())
    except KeyboardInterrupt:
        told = ", ".join(f"{count} x {status}" for status, count in sorted(simulator.answers.items())) or "nothing"
        budget = simulator.budget
        refused = f"{budget.neighbour_refused} of {show.many(budget.neighbour_calls, 'call')}"
        click.echo(f"answered {told}; others were refused {refused}", err=True)


def write_pairs(path: Path, simulator: "Simulator") -> None:
    """Write the sends that exist, as a user's own list would have them. Raises ``UsageError`` where it cannot."""
    try:
        file = path.open("w", newline="")
    except OSError as error:
        raise UsageError(f"cannot write the list of sends {path}: {error.strerror}") from None
    with file:
        writer = csv.writer(file)
        writer.writerow(["campaign_id", "send_id", "sent_at"])
        for each in simulator.population:
            assert each.sent_at is not None
            sent_at = datetime.fromtimestamp(each.sent_at, UTC).isoformat()
            writer.writerow([each.pair.campaign_id, each.pair.send_id, sent_at])
