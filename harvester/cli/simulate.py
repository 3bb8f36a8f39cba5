"""The command simulate: the stand-in API by itself."""

import asyncio
import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, output, startup
from harvester.errors import UsageError

if TYPE_CHECKING:
    from harvester.simulator import Simulator


def _list_faults(context: click.Context, option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it so
    """Print the faults, then exit."""
    del option
    if value:
        from harvester.simulator.faults import describe_faults

        click.echo(describe_faults())
        context.exit()


_SHARE = click.FloatRange(0, 1)


@click.command()
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="Port on 127.0.0.1.")
@click.option("--seed", default=1, show_default=True, help="The seed of all responses. They also depend on the time.")
@click.option("--pairs", default=5000, show_default=True, type=click.IntRange(1), help="The number of sends.")
@click.option("--write-pairs", "listed", type=options.LocalPath(), help="Write a list of the sends to this CSV file.")
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The day of the last sends; set it to use a list that was written earlier.  [default: today]",
)
@click.option(
    "--unknown-pairs",
    type=click.Choice(["zero", "empty"]),
    default="zero",
    show_default=True,
    help="The response for unknown and expired sends: days of zeros, or no days. Braze does not document its response.",
)
@click.option("--limit", default=250_000, show_default=True, type=click.IntRange(0), help="Requests per window.")
@click.option(
    "--window-seconds", default=3600.0, show_default=True, type=click.FloatRange(1), help="The length of a window."
)
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="The speed of its clock, so that sends expire sooner. The clocks of clients are not affected.",
)
@click.option(
    "--neighbour",
    type=click.Choice(["none", "steady", "bursty", "campaign"]),
    default="steady",
    show_default=True,
    help="How other users of the quota send requests: evenly, in six bursts per window, or late and all at once.",
)
@click.option(
    "--neighbour-share", default=0.0, show_default=True, type=_SHARE, help="The share of the quota that others use."
)
@click.option("--fault-rate", default=0.0, show_default=True, type=_SHARE, help="The share of faulty responses.")
@click.option("--fault", "faults", multiple=True, help="Only this fault; repeat for more.")
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="List the faults, then exit.",
)
@click.option(
    "--latency-seconds",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="The latency of each response, not affected by --speed.",
)
@click.option("--log", type=options.LocalPath(), help="Append each response to this NDJSON file before it is sent.")
def simulate(listed: Path | None, speed: float, day: datetime | None, faults: tuple[str, ...], **values: Any) -> None:
    """Run the stand-in API.

    Its key is demo-key; forbidden-key lacks the permission. A send id can request a fault: each request for an id that
    contains fault-503 gets a 503, and fault-503x2 does this for the first two requests only.

    \b
    Examples:
      harvester simulate --write-pairs pairs.csv --fault-rate 0.05 &
      BRAZE_API_KEY=demo-key harvester run pairs.csv --endpoint http://127.0.0.1:8765
      harvester simulate --window-seconds 60 --limit 4000 --neighbour campaign --neighbour-share 0.5
      harvester simulate --speed 14400   # a day takes six seconds
    """
    from harvester.clock import SystemClock
    from harvester.simulator import Simulator, SimulatorConfig
    from harvester.simulator.fast_clock import FastClock

    if faults:
        values["faults"] = faults
        if not values["fault_rate"]:
            raise UsageError("give the share of requests that get these faults, such as --fault-rate 0.05")
    config = SimulatorConfig(day=day.date() if day else None, **values)
    simulator = Simulator(config, FastClock(SystemClock(), speed))

    try:
        startup.run_async(_serve(simulator, listed))
    except KeyboardInterrupt:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(simulator.responses.items())) or "none"
        quota = simulator.quota
        others = output.plural(quota.neighbour_requests, "request")
        click.echo(f"responses: {counts}; {quota.neighbour_refused} of {others} of others were refused", err=True)


async def _serve(simulator: "Simulator", listed: Path | None) -> None:
    """Serve until cancelled. The list of sends is written first, if one is wanted."""
    async with simulator:
        if listed is not None:
            write_pairs(listed, simulator)
        click.echo(
            f"serving {output.plural(simulator.config.pairs, 'send')} on {simulator.url} "
            f"with the key {simulator.config.api_key}; press Ctrl-C to stop. "
            f"To serve the same sends later, use --day {simulator.day}",
            err=True,
        )
        await asyncio.Event().wait()


def write_pairs(path: Path, simulator: "Simulator") -> None:
    """Write the sends of a stand-in API as a list. Raises ``UsageError`` if the file cannot be written."""
    try:
        file = path.open("w", newline="")
    except OSError as error:
        raise UsageError(f"cannot write the list of sends {path}: {error.strerror}") from None
    with file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["campaign_id", "send_id", "sent_at"])
        for each in simulator.population:
            assert each.sent_at is not None
            sent_at = datetime.fromtimestamp(each.sent_at, UTC).isoformat()
            writer.writerow([each.pair.campaign_id, each.pair.send_id, sent_at])
