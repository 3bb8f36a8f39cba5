"""The command audit: finds sends that are neither captured nor pending."""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import ledger_access, options, output, progress, streams
from harvester.errors import ExitCode
from harvester.place import LedgerLocation

if TYPE_CHECKING:
    from harvester.commands.audit import Audit, Uncovered
    from harvester.ledger import ClockDifference
    from harvester.sources import Input, ListOptions, RejectsFile

STATES = ("unknown", "expired", "rejected")


@click.command()
@click.argument("sources", type=options.ListedPlace(), nargs=-1, required=True)
@ledger_access.list_command(creates=lambda arguments: arguments["adding"])
@options.list_workspaces
@options.list_options
@click.option("--enqueue", "adding", is_flag=True, help="Enqueue the sends that can still be read.")
@click.option("--json", is_flag=True, help="Print the list as NDJSON to stdout, and the counts as JSON to stderr.")
def audit(
    sources: tuple[str, ...],
    location: LedgerLocation,
    rejects_folder: Path,
    workspaces: list[str],
    list_options: "ListOptions",
    *,
    adding: bool,
    json: bool,
) -> None:
    """List the sends in SOURCES that are neither captured nor pending.

    SOURCES are lists as for harvester enqueue, such as a folder of Braze Currents. The command sends no request. It
    lists each missing send as unknown to the ledger, expired or rejected, and as readable (sent less than 15 days ago)
    or lost. The exit code is 0 if no send is missing or --enqueue added all of them, and 3 otherwise. Use harvester
    requeue for rejected sends.

    \b
    Example:
      harvester audit ./currents --enqueue; harvester run   # captures the missing sends
    """
    from harvester.sources import Input, RejectsFile

    output.check_stdout()  # before the ledger changes
    if not adding:
        ledger_access.check_exists(location)
    now, difference = ledger_access.get_time(location)
    listed = Input(sources, workspaces=workspaces, stdin=streams.get_stdin(), now=now, options=list_options)
    # A separate file, so that the rejects of the last run are kept.
    rejects = RejectsFile(rejects_folder / "audit-rejects.ndjson")
    done = asyncio.run(_audit(location, listed, rejects, now=now, adding=adding, json=json))
    if json:
        _print_json(done, listed, rejects, difference)
    else:
        output.print_lines(_count_lines(done, listed, rejects, output.clock_line(difference, location)))
    sys.exit(ExitCode.COMPLETE if done.complete and not rejects.count else ExitCode.PARTIAL)


async def _audit(
    location: LedgerLocation, listed: "Input", rejects: "RejectsFile", *, now: float, adding: bool, json: bool
) -> "Audit":
    """Compare the sends, and print each missing one when it is found."""
    from harvester.clock import SystemClock
    from harvester.commands.audit import Audit
    from harvester.ledger import Ledger

    async with await Ledger.open(location, clock=SystemClock()) as ledger, contextlib.AsyncExitStack() as view:
        await view.enter_async_context(progress.show_reading(listed))
        job = Audit(ledger, now=now, adding=adding)
        async for each in job.find_uncovered(listed, rejects):
            await view.aclose()  # the list replaces the progress
            if json:
                output.print_json(_as_dict(each), indent=False)
            else:
                click.echo(_as_line(each))
    return job


def _as_dict(found: "Uncovered") -> dict[str, Any]:
    pair = found.send.pair
    return {
        "workspace": pair.workspace,
        "campaign_id": pair.campaign_id,
        "send_id": pair.send_id,
        "sent_at": output.format_time(found.send.sent_at),
        "state": found.state,
        "readable": found.readable,
    }


def _as_line(found: "Uncovered") -> str:
    # Ids are quoted: they may contain control characters.
    pair = found.send.pair
    readable = "readable" if found.readable else "lost"
    sent_at = output.format_time(found.send.sent_at) or "?"
    return f"{found.state:<8} {readable:<8} {sent_at:<24} {pair.workspace} {pair.campaign_id!r} {pair.send_id!r}"


def _print_json(done: "Audit", listed: "Input", rejects: "RejectsFile", difference: "ClockDifference | None") -> None:
    counts = {
        "sends": done.sends,
        "covered": done.sends - done.uncovered.total(),
        "enqueued": done.enqueued,
        "bad_lines": rejects.count,
        "clock_difference_seconds": None if difference is None else difference.current_seconds,
    }
    uncovered = {
        state: {"readable": done.uncovered[state, True], "lost": done.uncovered[state, False]} for state in STATES
    }
    notes = {
        "bad_line_reasons": rejects.reasons,
        "skipped": dict(listed.skipped),
        "notes": [*listed.notes, *rejects.notes],
    }
    output.print_json(counts | uncovered | notes, indent=False, to_stderr=True)


def _count_lines(done: "Audit", listed: "Input", rejects: "RejectsFile", clock_line: str) -> list[str]:
    covered = done.sends - done.uncovered.total()
    return [
        f"covered    {covered} of {output.plural(done.sends, 'send')}",
        *(
            f"{state:<10} {done.uncovered[state, True]} readable, {done.uncovered[state, False]} lost"
            for state in STATES
        ),
        clock_line,
        *([f"enqueued   {done.enqueued}; harvester run captures them"] if done.enqueued else []),
        *output.describe_list(listed, rejects),
    ]
