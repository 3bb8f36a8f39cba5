"""The commands that change pairs of a ledger: enqueue, requeue and remove."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import ledger_access, options, output, progress, streams
from harvester.errors import ExitCode, UsageError
from harvester.place import LedgerLocation

if TYPE_CHECKING:
    from harvester.ledger import Ledger, SendHistory
    from harvester.sources import Input, ListOptions, RejectsFile

MAX_WORKSPACES = 20
"""How many workspaces with one pair an error names."""


def _strip_ids(_: click.Context, __: click.Parameter, ids: tuple[str, str] | None) -> tuple[str, str] | None:
    """Return ids without blanks around them, as in lists."""
    return ids and (ids[0].strip(), ids[1].strip())


one_pair = click.option(
    "--pair", "ids", nargs=2, metavar="CAMPAIGN_ID SEND_ID", callback=_strip_ids, help="Only this pair."
)


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@ledger_access.list_command(creates=lambda _: True)
@options.list_workspaces
@options.list_options
def enqueue(
    pairs: tuple[str, ...],
    location: LedgerLocation,
    rejects_folder: Path,
    workspaces: list[str],
    list_options: "ListOptions",
) -> None:
    """Add PAIRS to the ledger, even while a service uses it.

    The service, or harvester run without PAIRS, captures them. PAIRS are lists as for harvester run. Folders of
    Braze Currents are searched for .avro files at any depth.

    \b
    Examples:
      harvester enqueue more.csv && harvester run
      harvester enqueue ./currents && harvester run
    """
    from harvester.sources import Input, RejectsFile

    output.check_stdout()  # before the ledger changes
    now, difference = ledger_access.get_time(location)
    listed = Input(pairs, workspaces=workspaces, stdin=streams.get_stdin(), now=now, options=list_options)
    rejects = RejectsFile(rejects_folder / "rejects.ndjson")
    new, known, unserved = asyncio.run(_enqueue(location, listed, rejects, workspaces))
    unread = f", {output.plural(rejects.count, 'line')} unreadable" if rejects.count else ""
    unread += f", see {rejects.file}" if rejects.file else ""
    counts = f"{output.plural(new, 'pair is', 'pairs are')} new, {output.plural(known, 'was', 'were')} known{unread}"
    output.print_lines([counts, *(f"           {reason}" for reason in rejects.reasons)])
    output.print_lines([output.clock_line(difference, location)], err=True)
    if unserved:
        text = (
            f"no service has used this ledger for {output.quote(unserved)} yet, so their sends are read once. To read "
            "them several times, start harvester serve, then enqueue them again."
        )
        output.print_lines([text], err=True)
    notes = output.note_lines([*listed.notes, *rejects.notes])
    output.print_lines([*output.describe_formats(listed.formats), *output.skipped_lines(listed.skipped), *notes])
    sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)


async def _enqueue(
    location: LedgerLocation, listed: "Input", rejects: "RejectsFile", workspaces: list[str]
) -> tuple[int, int, set[str]]:
    """Add the pairs; returns how many are new and known, and which workspaces no service has served."""
    from harvester.clock import SystemClock
    from harvester.commands.enqueue import enqueue_all
    from harvester.ledger import Ledger

    new = known = 0
    async with await Ledger.open(location, clock=SystemClock()) as ledger, progress.show_reading(listed):
        async for _, count in enqueue_all(ledger, listed, rejects):
            new, known = new + count.new, known + count.known
        served = await ledger.reports.list_planned_workspaces()
    return new, known, set(workspaces).difference(served)


@click.command()
@ledger_access.ledger_command
@click.option(
    "--outcome",
    type=click.Choice(["rejected", "expired"]),
    help="The outcome of the pairs to read again.",
)
@click.option("--reason", help="Only pairs that were rejected for this reason, such as status_400.")
@one_pair
@click.option("--workspace", help="Only this workspace.  [default: all]")
def requeue(
    location: LedgerLocation,
    outcome: str | None,
    reason: str | None,
    ids: tuple[str, str] | None,
    workspace: str | None,
) -> None:
    """Make rejected or expired pairs pending again.

    Takes all pairs with an --outcome, or one --pair. A running service, or the next harvester run, requests them.

    \b
    Examples:
      harvester requeue --outcome rejected --reason status_404
      harvester requeue --pair 6f2c autumn-1
    """
    output.check_stdout()  # before the ledger changes
    if (outcome is None) == (ids is None):
        raise UsageError("requeue takes either --outcome, or one --pair")
    if reason is not None and outcome != "rejected":
        raise UsageError("--reason needs --outcome rejected; expired pairs have no reason")
    if ids is not None:
        count = ledger_access.with_ledger(location, lambda ledger: _requeue_pair(ledger, ids, workspace))
    else:
        count = ledger_access.with_ledger(
            location, lambda ledger: _requeue_all(ledger, str(outcome), reason, workspace)
        )
    reopened = output.plural(count, "pair is", "pairs are")
    click.echo(f"{reopened} pending again; a running service or harvester run requests them")


async def _requeue_all(ledger: "Ledger", outcome: str, reason: str | None, workspace: str | None) -> int:
    """Reopen pairs by outcome; returns how many. Prints the known reasons if nobody was rejected for ``reason``."""
    reasons = (await ledger.reports.get_books()).rejected
    count = await ledger.intake.requeue(outcome=outcome, reason=reason, workspace=workspace)
    if reason is not None and reason not in reasons:
        known = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "none"
        click.echo(f"no pair was rejected for the reason {reason!r}; the reasons in this ledger are: {known}", err=True)
    return count


async def _requeue_pair(ledger: "Ledger", ids: tuple[str, str], workspace: str | None) -> int:
    """Reopen one pair; returns 1. Raises ``UsageError`` for a pair that is pending or captured."""
    found = await _find_pair(ledger, ids, [workspace] if workspace is not None else [])
    if not await ledger.intake.requeue_pair(found.pair):
        raise UsageError(f"the pair is {found.state}; only a rejected or expired pair can be requeued")
    return 1


async def _find_pair(ledger: "Ledger", ids: tuple[str, str], workspaces: Sequence[str]) -> "SendHistory":
    """Find a pair that exists in one workspace. Raises ``UsageError``."""
    found = await ledger.reports.find_sends(ids[1], campaign_id=ids[0], workspaces=workspaces, limit=MAX_WORKSPACES)
    if not found.sends:
        where = f" in workspace {output.quote(workspaces)}" if workspaces else ""
        raise UsageError(f"the ledger does not contain the pair {ids[0]!r} {ids[1]!r}{where}; check the ids")
    if len(found.sends) > 1:
        names = output.quote(each.pair.workspace for each in found.sends)
        raise UsageError(f"several workspaces have the pair {ids[0]!r} {ids[1]!r}; name one with --workspace: {names}")
    return found.sends[0]


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1)
@ledger_access.list_command()
@one_pair
@options.list_workspaces
@options.list_options
@click.pass_context
def remove(
    context: click.Context,
    pairs: tuple[str, ...],
    location: LedgerLocation,
    rejects_folder: Path,
    ids: tuple[str, str] | None,
    workspaces: list[str],
    list_options: "ListOptions",
) -> None:
    """Delete the sends in PAIRS, or one --pair, from the ledger.

    They are not read again, and are no longer counted. Parts do not change. The exit code is 3 if a pair was not
    removed, because the ledger does not contain it or a process is reading it.

    \b
    Examples:
      harvester remove sends.csv
      harvester remove --pair 6f2c autumn-1 --workspace eu
    """
    output.check_stdout()  # before the ledger changes
    if bool(pairs) == (ids is not None):
        raise UsageError("remove takes either lists of pairs, or one --pair")
    if ids is None:
        listed = _open_lists(location, pairs, workspaces, list_options)
        _remove_listed(location, listed, rejects_folder / "remove-rejects.ndjson")
        return
    named = context.params["workspaces"]  # a pair may be in a workspace that no service serves any more
    removed = ledger_access.with_ledger(location, lambda ledger: _remove_pair(ledger, ids, named))
    if not removed:
        click.echo("removed 0 of 1 pair; it is being read now: repeat the command in a minute")
        sys.exit(ExitCode.PARTIAL)
    click.echo("removed 1 of 1 pair")


async def _remove_pair(ledger: "Ledger", ids: tuple[str, str], workspaces: Sequence[str]) -> int:
    found = await _find_pair(ledger, ids, workspaces)
    return await ledger.intake.remove([found.pair])


def _open_lists(
    location: LedgerLocation, pairs: tuple[str, ...], workspaces: list[str], list_options: "ListOptions"
) -> "Input":
    from harvester.sources import Input

    now, _ = ledger_access.get_time(location)
    return Input(pairs, workspaces=workspaces, stdin=streams.get_stdin(), now=now, options=list_options)


def _remove_listed(location: LedgerLocation, listed: "Input", rejects_file: Path) -> None:
    """Delete the pairs in lists, and end with the exit code."""
    from harvester.sources import RejectsFile

    rejects = RejectsFile(rejects_file)

    async def remove_all(ledger: "Ledger") -> tuple[int, int]:
        read = removed = 0
        async with progress.show_reading(listed):
            for page in listed.read_pages(rejects):
                read += len(page)
                removed += await ledger.intake.remove([each.pair for each in page]) if page else 0
                await asyncio.sleep(0)
        return read, removed

    read, removed = ledger_access.with_ledger(location, remove_all)
    rest = "; the others are not in the ledger, or are being read now: repeat the command in a minute"
    click.echo(f"removed {removed} of {output.plural(read, 'pair')}{rest if removed < read else ''}")
    output.print_lines(output.describe_list(listed, rejects))
    sys.exit(ExitCode.PARTIAL if rejects.count or removed < read else ExitCode.COMPLETE)
