"""The commands that change pairs of a ledger: enqueue, requeue and remove."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import ledger_access, options, output, progress
from harvester.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harvester.ledger import Ledger
    from harvester.sources import Input, RejectsFile


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@ledger_access.creating_command(lambda _: True)
@options.list_workspaces
def enqueue(pairs: tuple[str, ...], path: Path, workspaces: list[str]) -> None:
    """Add PAIRS to the ledger, also while a service uses it.

    The service, or harvester run without PAIRS, captures them. PAIRS are files as for harvester run, or folders of
    Braze Currents, which are searched for .avro files at any depth.

    \b
    Examples:
      harvester enqueue more.csv && harvester run
      harvester enqueue ./currents && harvester run
    """
    from harvester.sources import Input, RejectsFile

    now, difference = ledger_access.get_time(path)
    listed = Input(pairs, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
    rejects = RejectsFile(path.with_name("rejects.ndjson"))
    new, known, unserved = asyncio.run(_enqueue(path, listed, rejects, workspaces))
    unread = f", {output.plural(rejects.count, 'line')} unreadable, see {rejects.path}" if rejects.count else ""
    click.echo(f"{output.plural(new, 'pair is', 'pairs are')} new, {output.plural(known, 'was', 'were')} known{unread}")
    for reason in rejects.reasons:
        click.echo(f"           {reason}")
    click.echo(output.clock_line(difference), err=True)
    if unserved:
        click.echo(
            f"no service has used this ledger for {output.quote(unserved)} yet, so their sends are read "
            "once. To read them several times, start harvester serve, then enqueue them again.",
            err=True,
        )
    for line in [*output.skipped_lines(listed.skipped), *output.note_lines(listed.notes)]:
        click.echo(line)
    sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)


async def _enqueue(
    path: Path, listed: "Input", rejects: "RejectsFile", workspaces: list[str]
) -> tuple[int, int, set[str]]:
    """Add the pairs; returns how many are new and known, and which workspaces no service has served."""
    from harvester.clock import SystemClock
    from harvester.commands.capture import enqueue_all
    from harvester.ledger import Ledger

    new = known = 0
    async with await Ledger.open(path, clock=SystemClock()) as ledger, progress.show_reading(listed):
        async for count in enqueue_all(ledger, listed, rejects):
            new, known = new + count.new, known + count.known
        served = await ledger.reports.list_served_workspaces()
    return new, known, set(workspaces).difference(served)


@click.command()
@ledger_access.ledger_command
@click.option(
    "--outcome",
    type=click.Choice(["rejected", "expired"]),
    required=True,
    help="The outcome of the pairs to read again.",
)
@click.option("--reason", help="Only pairs that were rejected for this reason, such as status_400.")
def requeue(path: Path, outcome: str, reason: str | None) -> None:
    """Make rejected or expired pairs pending again.

    A running service, or the next harvester run, requests them.

    \b
    Example:
      harvester requeue --outcome rejected --reason status_404
    """
    if reason is not None and outcome != "rejected":
        raise UsageError("--reason needs --outcome rejected; expired pairs have no reason")

    async def reopen(ledger: "Ledger") -> tuple[int, Mapping[str, int]]:
        reasons = (await ledger.reports.get_books()).rejected
        return await ledger.intake.requeue(outcome=outcome, reason=reason), reasons

    count, reasons = ledger_access.with_ledger(path, reopen)
    if reason is not None and reason not in reasons:
        known = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "none"
        click.echo(f"no pair was rejected for the reason {reason!r}; the reasons in this ledger are: {known}", err=True)
    reopened = output.plural(count, "pair is", "pairs are")
    click.echo(f"{reopened} pending again; a running service or harvester run requests them")


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@ledger_access.ledger_command
@options.list_workspaces
def remove(pairs: tuple[str, ...], path: Path, workspaces: list[str]) -> None:
    """Delete the sends in PAIRS from the ledger.

    They are not read again, and are no longer counted. Parts do not change.

    \b
    Example:
      harvester remove sends.csv
    """
    from harvester.sources import Input, RejectsFile

    now, _ = ledger_access.get_time(path)
    listed = Input(pairs, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
    rejects = RejectsFile(path.with_name("remove-rejects.ndjson"))

    async def remove_all(ledger: "Ledger") -> tuple[int, int]:
        read = removed = 0
        for page in filter(None, listed.pages(rejects)):
            read += len(page)
            removed += await ledger.intake.remove([each.pair for each in page])
        return read, removed

    read, removed = ledger_access.with_ledger(path, remove_all)
    rest = "; the others are not in the ledger, or are being read now: repeat the command in a minute"
    click.echo(f"removed {removed} of {output.plural(read, 'pair')}{rest if removed < read else ''}")
    for line in output.list_lines(listed, rejects):
        click.echo(line)
    sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)
