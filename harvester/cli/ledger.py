"""Commands about a ledger: enqueue, status, requeue, pause, unpause, remove, parts."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import options, show
from harvester.clock import SystemClock
from harvester.errors import ExitCode, UsageError
from harvester.model import Books, Pair

if TYPE_CHECKING:
    from harvester.ledger.books import StoredPart


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@options.ledger_to_make(lambda _: True)
@options.listed
def enqueue(pairs: tuple[str, ...], path: Path, workspaces: list[str]) -> None:
    """Add PAIRS to a ledger, that of a running harvest too.

    harvester run without PAIRS captures them. PAIRS are files as for harvester run, or folders of Braze Currents,
    searched for .avro files at any depth.

    \b
    Examples:
      harvester enqueue more.csv && harvester run
      harvester enqueue ./currents && harvester run
    """
    from harvester.commands.capture import enqueue_all
    from harvester.ledger import Ledger
    from harvester.ledger.plans import followed
    from harvester.sources import Input, RejectsFile

    now, difference = options.known_time(path)
    listed = Input(pairs, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
    rejects = RejectsFile(path.with_name("rejects.ndjson"))

    async def add() -> tuple[int, int, set[str]]:
        new = known = 0
        async with await Ledger.open(path, clock=SystemClock()) as ledger, show.reading(listed):
            async for count in enqueue_all(ledger, listed, rejects):
                new, known = new + count.new, known + count.known
            served = await ledger.do(followed)
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
@click.option("--json", is_flag=True, help="The same as JSON.")
def status(path: Path, *, json: bool) -> None:
    """Show the books: what was accepted, and what became of it.

    accepted = captured + rejected + expired + pending; of each workspace too where there are more.

    \b
    Example:
      harvester status -o ./harvest
    """
    from harvester.ledger import books, outlook

    now, difference = options.known_time(path)
    each, readings, batches, without_part, halted, at_risk, rejected = options.looked(
        path,
        lambda tx: (
            books.books_of_each(tx),
            books.reading_counts(tx),
            books.batch_counts(tx),
            books.batches_without_part(tx),
            {name: because for name, (because, _) in books.halted(tx).items()},
            outlook.at_risk(tx, now=now),
            outlook.latest_rejections(tx, limit=5),
        ),
    )
    balance = Books.together(each.values())
    if json:
        ahead = None if difference is None else difference.current_seconds
        figures = {"readings": readings, "batches": batches, "halted": halted, "at_risk": sum(at_risk.values()),
                   "clock_difference_seconds": ahead}  # fmt: skip
        show.as_json({"books": show.books(balance), "workspaces": show.books_of_each(each), **figures})
        return
    lines = show.book_lines(balance, each)
    lines.append("readings   " + ", ".join(f"{count} {name}" for name, count in sorted(readings.items())))
    listed = ", ".join(f"{count} {name}" for name, count in sorted(batches.items())) or "none"
    lines.append("batches    " + listed + (f"; {without_part} brought no row, so made no part" if without_part else ""))
    lines.append(f"at risk    {show.many(sum(at_risk.values()), 'pair')} may expire unread")
    lines += [f'at risk    workspace "{name}": {show.many(n, "pair")}' for name, n in at_risk.items() if n]
    lines += [f'halted     workspace "{name}": {because}' for name, because in halted.items()]
    lines.append(show.clock_line(difference))
    lines += show.refused_lines(each)
    lines += [
        f"rejected   {one.pair.campaign_id!r} {one.pair.send_id!r}: {one.reason}: {one.detail}" for one in rejected
    ]
    click.echo("\n".join(lines))


@click.command()
@options.ledger
@click.option(
    "--outcome", type=click.Choice(["rejected", "expired"]), required=True, help="How the pairs ended that get it."
)
@click.option("--reason", help="Of rejected pairs, only those refused for this reason, such as status_400.")
def requeue(path: Path, outcome: str, reason: str | None) -> None:
    """Give rejected or expired pairs another chance.

    A running service or the next run asks for them.

    \b
    Example:
      harvester requeue --outcome rejected --reason status_404
    """
    from harvester.ledger import books, intake

    if reason is not None and outcome != "rejected":
        raise UsageError("--reason is of rejected pairs alone; leave it out, or say --outcome rejected")
    reasons = options.looked(path, books.books).rejected
    now, _ = options.known_time(path)
    count = options.asked(path, lambda tx: intake.requeue(tx, outcome=outcome, reason=reason, now=now))
    if reason is not None and reason not in reasons:
        known = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "none at all"
        click.echo(f"no pair is rejected for the reason {reason!r}; reasons here: {known}", err=True)
    click.echo(f"{show.many(count, 'pair is', 'pairs are')} pending again, for a running service or harvester run")


def _about_pairs(name: str, does: str, hint: str) -> click.Command:
    """Make a command that does one thing to the pairs of a list."""

    @click.command(name, help=f"{does}\n\n\b\nExample:\n  harvester {name} sends.csv")
    @click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
    @options.ledger
    @options.listed
    def command(pairs: tuple[str, ...], path: Path, workspaces: list[str]) -> None:
        from harvester.ledger import intake
        from harvester.sources import Input, RejectsFile

        now, _ = options.known_time(path)
        listed = Input(pairs, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
        rejects = RejectsFile(path.with_name(f"{name}-rejects.ndjson"))
        read = 0

        def pages() -> Iterator[list[Pair]]:
            nonlocal read
            for page in filter(None, listed.pages(rejects)):
                read += len(page)
                yield [each.pair for each in page]

        count = options.asked_of_each(path, getattr(intake, name), pages())
        click.echo(f"{count} of {show.many(read, 'pair')}: {name}d; {hint}")
        unread = show.unread_lines(rejects.count, listed.lines, rejects.reasons, where=str(rejects.path))
        for line in [*unread, *show.skipped_lines(listed.skipped), *show.note_lines(listed.notes)]:
            click.echo(line)
        sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)

    return command


pause = _about_pairs(
    "pause", "Leave the sends in PAIRS alone until they are unpaused. They go on being pending.",
    "those that are being read now are not: say it again in a minute",
)  # fmt: skip
unpause = _about_pairs(
    "unpause", "Take paused sends in PAIRS up again, where they were.", "what fell due meanwhile is read once"
)
remove = _about_pairs(
    "remove", "Forget the sends in PAIRS: they are not read any more. They are in no book; parts stay as they are.",
    "those that are being read now are not: say it again in a minute",
)  # fmt: skip


@click.command()
@options.ledger
@click.option("--since", default=0, show_default=True, help="Only parts stored after the one that has this `order`.")
def parts(path: Path, since: int) -> None:
    """List stored parts in the order of storing, for loaders.

    Each is a line of NDJSON; a loader remembers the last one's order.

    \b
    Example:
      harvester parts --since 17
    """
    from harvester.ledger import books

    def following(after: int) -> "list[StoredPart]":
        return options.looked(path, lambda tx: books.stored_parts(tx, after=after, limit=1000))

    while page := following(since):
        for part in page:
            show.as_json(asdict(part) | {"stored_at": show.time(part.stored_at)}, indent=False)
        since = page[-1].order
