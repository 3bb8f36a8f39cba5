"""The command plan: estimates a capture."""

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import ledger_access, options, output, progress, streams
from harvester.errors import ExitCode
from harvester.place import LedgerLocation

if TYPE_CHECKING:
    from harvester.books import Books
    from harvester.commands.estimate import Estimate
    from harvester.settings import Workspace
    from harvester.sources import Input, ListOptions, RejectsFile

DEFAULT_LIMITS = {"reserve": 0.2, "max_rate": 1000.0}


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@ledger_access.reading_command
@options.list_workspaces
@options.list_options
@options.endpoint
@options.capture
@click.option(
    "--limit", default=250_000, show_default=True, type=click.IntRange(1), help="The quota: requests per hour."
)
@click.option(
    "--reserve",
    type=click.FloatRange(0, 1, max_open=True),
    help="The share of the hourly quota that stays free for live sending.  [default: that of --config, or 0.2]",
)
@click.option(
    "--max-rate",
    type=click.FloatRange(0, min_open=True),
    help="The most requests per second.  [default: that of --config, or 1000]",
)
@click.option("--json", is_flag=True, help="Print JSON.")
def plan(
    pairs: tuple[str, ...],
    location: LedgerLocation,
    workspaces: list[str],
    list_options: "ListOptions",
    configured: "Mapping[str, Workspace] | None",
    **arguments: Any,
) -> None:
    """Estimate the requests, time and quota of a capture.

    Also shows how many pairs would expire before they are requested. The estimate is for one workspace, with the quota
    of --limit, --reserve and --max-rate. If the workspaces of --config differ, the largest reserve and the smallest
    rate count. The options of harvester run for the connection and the parts, such as --endpoint and --compression, are
    accepted and ignored. The exit code is 3 if lines could not be read.

    \b
    Example:
      harvester plan sends.csv --reserve 0.5
    """
    given = {name: arguments[name] for name in ("limit", "reserve", "max_rate") if arguments[name] is not None}
    planned = [each for name, each in (configured or {}).items() if name in workspaces]
    limits = DEFAULT_LIMITS | _find_strictest_limits(planned) | given
    estimate, books, listed, rejects, included = asyncio.run(
        _estimate(pairs, location, workspaces, limits, list_options)
    )
    counts = {"settled": books.accepted - books.pending - books.expired, "expired": books.expired} | included
    _, difference = ledger_access.get_time(location)
    output.print_lines([output.clock_line(difference, location)], err=True)
    if arguments["json"]:
        unread = {"bad_lines": rejects.count, "bad_line_reasons": rejects.reasons}
        output.print_json(asdict(estimate) | counts | unread | {"lists": listed.formats, "notes": listed.notes})
    else:
        lines = estimate_lines(estimate, **counts, limit=arguments["limit"])
        output.print_lines([*lines, *output.describe_list(listed, rejects, see_file=False)])
    sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)


def _find_strictest_limits(workspaces: "Sequence[Workspace]") -> dict[str, float]:
    """Return the largest reserve and the smallest rate; empty without workspaces."""
    if not workspaces:
        return {}
    return {"reserve": max(each.reserve for each in workspaces), "max_rate": min(each.max_rate for each in workspaces)}


async def _estimate(
    pairs: tuple[str, ...],
    location: LedgerLocation,
    workspaces: list[str],
    limits: dict[str, Any],
    list_options: "ListOptions",
) -> "tuple[Estimate, Books, Input, RejectsFile, dict[str, int]]":
    """Enqueue the pairs in a copy of the ledger, and estimate what is pending there.

    Also returns how many pairs of the lists are new and known, and of the ledger, how many were pending before and how
    many readings are not due yet.
    """
    from harvester.clock import SystemClock
    from harvester.commands.enqueue import enqueue_all
    from harvester.commands.estimate import estimate
    from harvester.ledger import Ledger
    from harvester.sources import Input, RejectsFile

    with tempfile.TemporaryDirectory(prefix="harvester-") as folder:
        draft = Path(folder) / "ledger.db"
        if await Ledger.exists(location, clock=SystemClock()):
            await Ledger.copy_pairs(location, draft, clock=SystemClock())
        async with await Ledger.open(draft, clock=SystemClock()) as ledger:
            now = ledger.clock.wall()
            listed = Input(pairs, workspaces=workspaces, stdin=streams.get_stdin(), now=now, options=list_options)
            before = sum((await ledger.reports.count_pending()).values())
            rejects = RejectsFile(Path(folder) / "rejects.ndjson")
            new = known = 0
            async with progress.show_reading(listed):
                async for _, count in enqueue_all(ledger, listed, rejects):
                    new, known = new + count.new, known + count.known
            await ledger.upkeep.schedule_due(workspaces, trust_clock=True)
            await ledger.upkeep.expire(workspaces, trust_clock=True)
            result = estimate(await ledger.reports.list_deadlines(), now=now, **limits)
            included = {
                "list_new": new,
                "list_known": known,
                "pending_before": before,
                "planned_readings": await ledger.reports.count_planned(),
            }
            return result, await ledger.reports.get_books(), listed, rejects, included


def estimate_lines(
    estimate: "Estimate", *, settled: int, expired: int, limit: int, list_new: int = 0, list_known: int = 0,
    pending_before: int = 0, planned_readings: int = 0,
) -> list[str]:  # fmt: skip
    """Return the pairs of the lists and of the ledger, and what a capture needs or that nothing is due."""
    counts = [
        f"in list    {output.plural(list_new + list_known, 'pair')}: {list_new} new, {list_known} already in the ledger"
    ]
    total = [output.plural(settled, "pair is", "pairs are") + " already settled"] if settled else []
    total += [output.plural(expired, "pair has", "pairs have") + " expired"] if expired else []
    total += (
        [output.plural(planned_readings, "reading is", "readings are") + " not due yet"] if planned_readings else []
    )
    counts += [f"in total   {', '.join(total)} (of the ledger and the list together)"] if total else []
    if not estimate.requests:
        return [*counts, "requests   0: no pair is due"]
    seconds = estimate.duration_seconds
    duration = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
    share = f"{estimate.quota_share:.1%}" if estimate.quota_share >= 0.001 else "less than 0.1%"
    included = (
        f", including {output.plural(pending_before, 'pair')} pending in the ledger before" if pending_before else ""
    )
    return [
        *counts,
        f"requests   {estimate.requests}{included}",
        f"pace       {estimate.pace:.1f} requests per second, if there are no other users of the quota",
        f"time       {duration}",
        f"quota      {share} of an hour's {output.plural(limit, 'request')}",
        f"missed     {output.plural(estimate.missed, 'pair')} would expire before they are requested",
    ]
