"""Commands about a ledger: enqueue, status, requeue, remove, parts."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import options, progress, show
from harvester.clock import SystemClock
from harvester.errors import ExitCode, UsageError
from harvester.model import Books

if TYPE_CHECKING:
    from harvester.ledger import Ledger, StoredPart

REJECTIONS = 5
"""How many of the latest rejected pairs ``status`` lists."""


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@options.ledger_to_make(lambda _: True)
@options.listed
def enqueue(pairs: tuple[str, ...], path: Path, workspaces: list[str]) -> None:
    """Add PAIRS to the ledger, also while a service uses it.

    The service, or harvester run without PAIRS, captures them. PAIRS are files as for harvester run, or folders of
    Braze Currents, which are searched for .avro files at any depth.

    \b
    Examples:
      harvester enqueue more.csv && harvester run
      harvester enqueue ./currents && harvester run
    """
    from harvester.commands.capture import enqueue_all
    from harvester.ledger import Ledger
    from harvester.sources import Input, RejectsFile

    now, difference = options.known_time(path)
    listed = Input(pairs, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
    rejects = RejectsFile(path.with_name("rejects.ndjson"))

    async def add() -> tuple[int, int, set[str]]:
        new = known = 0
        async with await Ledger.open(path, clock=SystemClock()) as ledger, progress.reading(listed):
            async for count in enqueue_all(ledger, listed, rejects):
                new, known = new + count.new, known + count.known
            served = await ledger.reports.list_served_workspaces()
        return new, known, set(workspaces).difference(served)

    new, known, unserved = asyncio.run(add())
    click.echo(
        f"{show.many(new, 'pair is', 'pairs are')} new, {show.many(known, 'was', 'were')} known"
        + (f", {show.many(rejects.count, 'line')} unreadable, see {rejects.path}" if rejects.count else "")
    )
    for reason in rejects.reasons:
        click.echo(f"           {reason}")
    click.echo(show.clock_line(difference), err=True)
    if unserved:
        click.echo(
            f"no service has used this ledger for {show.quoted(unserved)} yet, so their sends are read "
            "once. To read them several times, start harvester serve, then enqueue them again.",
            err=True,
        )
    for line in [*show.skipped_lines(listed.skipped), *show.note_lines(listed.notes)]:
        click.echo(line)
    sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)


@click.command()
@options.ledger
@click.option("--json", is_flag=True, help="Print JSON.")
def status(path: Path, *, json: bool) -> None:
    """Print the books of the ledger.

    Accepted pairs = captured + rejected + expired + pending. With several workspaces, also prints the books of each.

    \b
    Example:
      harvester status -o ./harvest
    """
    _, difference = options.known_time(path)
    found = options.with_ledger(path, lambda ledger: ledger.reports.get_status(rejections=REJECTIONS))
    balances, at_risk = found.workspaces, found.at_risk
    balance = Books.sum(balances.values())
    if json:
        ahead = None if difference is None else difference.current_seconds
        figures = {"readings": found.readings, "batches": found.batches, "halted": found.halted,
                   "at_risk": sum(at_risk.values()), "clock_difference_seconds": ahead}  # fmt: skip
        show.as_json({"books": show.books(balance), "workspaces": show.books_of_each(balances), **figures})
        return
    lines = show.book_lines(balance, balances)
    lines.append("readings   " + ", ".join(f"{count} {name}" for name, count in sorted(found.readings.items())))
    listed = ", ".join(f"{count} {name}" for name, count in sorted(found.batches.items())) or "none"
    empty = found.batches_without_part
    lines.append("batches    " + listed + (f"; {empty} without rows" if empty else ""))
    lines.append(f"at risk    {show.many(sum(at_risk.values()), 'pair')} may expire unread")
    lines += [f'at risk    workspace "{name}": {show.many(n, "pair")}' for name, n in at_risk.items() if n]
    lines += [f'halted     workspace "{name}": {because}' for name, because in found.halted.items()]
    lines.append(show.clock_line(difference))
    lines += show.refused_lines(balances)
    lines += [
        f"rejected   {each.pair.campaign_id!r} {each.pair.send_id!r}: {each.reason}: {each.detail}"
        for each in found.rejections
    ]
    click.echo("\n".join(lines))


@click.command()
@options.ledger
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

    count, reasons = options.with_ledger(path, reopen)
    if reason is not None and reason not in reasons:
        known = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "none"
        click.echo(f"no pair was rejected for the reason {reason!r}; the reasons in this ledger are: {known}", err=True)
    click.echo(
        f"{show.many(count, 'pair is', 'pairs are')} pending again; a running service or harvester run requests them"
    )


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@options.ledger
@options.listed
def remove(pairs: tuple[str, ...], path: Path, workspaces: list[str]) -> None:
    """Delete the sends in PAIRS from the ledger.

    They are not read again, and are no longer counted. Parts do not change.

    \b
    Example:
      harvester remove sends.csv
    """
    from harvester.sources import Input, RejectsFile

    now, _ = options.known_time(path)
    listed = Input(pairs, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
    rejects = RejectsFile(path.with_name("remove-rejects.ndjson"))

    async def remove_all(ledger: "Ledger") -> tuple[int, int]:
        read = removed = 0
        for page in filter(None, listed.pages(rejects)):
            read += len(page)
            removed += await ledger.intake.remove([each.pair for each in page])
        return read, removed

    read, removed = options.with_ledger(path, remove_all)
    click.echo(
        f"removed {removed} of {show.many(read, 'pair')}; pairs that are being read now stay: "
        "repeat the command in a minute"
    )
    unread = show.unread_lines(rejects.count, listed.lines, rejects.reasons, where=str(rejects.path))
    for line in [*unread, *show.skipped_lines(listed.skipped), *show.note_lines(listed.notes)]:
        click.echo(line)
    sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)


@click.command()
@options.ledger
@click.option("--since", default=0, show_default=True, help="Only parts stored after the part with this order.")
def parts(path: Path, since: int) -> None:
    """List stored parts in the order of storing, for loaders.

    Prints a line of NDJSON per part. A loader saves the order of the last part that it loaded.

    \b
    Example:
      harvester parts --since 17
    """

    def following(after: int) -> "list[StoredPart]":
        return options.with_ledger(path, lambda ledger: ledger.reports.list_parts(after=after, limit=1000))

    while page := following(since):
        for part in page:
            show.as_json(asdict(part) | {"stored_at": show.time(part.stored_at)}, indent=False)
        since = page[-1].order
