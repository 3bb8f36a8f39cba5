"""Commands about a ledger: status, requeue, pause, unpause, remove, parts, backup."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import options, show
from harvester.clock import SystemClock
from harvester.errors import ExitCode

if TYPE_CHECKING:
    from harvester.ledger.books import StoredPart


@click.command()
@options.place
@click.option("--json", is_flag=True, help="As JSON.")
def status(out: str | None, state: Path | None, *, json: bool) -> None:
    """Show the books: accepted = captured + rejected + expired + pending.

    \b
    Example:
      harvester status -o ./harvest
    """
    from harvester.ledger import books, outlook

    now = SystemClock().wall()
    balance, readings, batches, halted, at_risk, rejected = options.looked(
        out,
        state,
        lambda tx: (
            books.books(tx),
            books.reading_counts(tx),
            books.batch_counts(tx),
            {name: because for name, (because, _) in books.halted(tx).items()},
            outlook.at_risk(tx, now=now),
            outlook.latest_rejections(tx, limit=5),
        ),
    )
    if json:
        figures = {"readings": readings, "batches": batches, "halted": halted, "at_risk": at_risk}
        show.as_json({"books": show.books(balance), **figures})
        return
    lines = show.book_lines(balance)
    lines.append("readings   " + ", ".join(f"{count} {name}" for name, count in sorted(readings.items())))
    lines.append("batches    " + (", ".join(f"{count} {name}" for name, count in sorted(batches.items())) or "none"))
    lines.append(f"at risk    {at_risk} pending pairs are past their planning deadline")
    lines += [f"halted     {name}: {because}" for name, because in halted.items()]
    lines += [
        f"rejected   {each.pair.campaign_id!r} {each.pair.send_id!r}: {each.reason}: {each.detail}" for each in rejected
    ]
    click.echo("\n".join(lines))


@click.command()
@options.place
@click.option("--outcome", type=click.Choice(["rejected", "expired"]), required=True, help="Which pairs.")
@click.option("--reason", help="Only those rejected for this reason, such as status_400.")
def requeue(out: str | None, state: Path | None, outcome: str, reason: str | None) -> None:
    """Give rejected or expired pairs another chance; a running service or the next run asks for them.

    \b
    Example:
      harvester requeue --outcome rejected --reason status_404
    """
    from harvester.ledger import intake

    count = options.asked(
        out, state, lambda tx: intake.requeue(tx, outcome=outcome, reason=reason, now=SystemClock().wall())
    )
    click.echo(f"{count} pairs are pending again; a running service or harvester run takes them up")


def _about_pairs(name: str, does: str, hint: str) -> click.Command:
    """Make a command that does one thing to the pairs of a list."""

    @click.command(name, help=f"{does}\n\n\b\nExample:\n  harvester {name} sends.csv")
    @click.argument("pairs", nargs=-1, required=True)
    @options.place
    @click.option("--workspace", "workspaces", multiple=True, help="A workspace's name; several for several.")
    def command(pairs: tuple[str, ...], out: str | None, state: Path | None, workspaces: tuple[str, ...]) -> None:
        from harvester.ledger import intake
        from harvester.sources import Input, RejectsFile

        path = options.ledger_path(out, state)
        names = options.workspaces_of(path, workspaces)
        listed = Input(pairs, workspaces=names, stdin=sys.stdin.buffer, now=SystemClock().wall())
        rejects = RejectsFile(path.with_name(f"{name}-rejects.ndjson"))
        pages = ([each.pair for each in page] for page in listed.pages(rejects) if page)
        count = options.asked_of_each(out, state, getattr(intake, name), pages)
        click.echo(f"{count} of {listed.lines - rejects.count} pairs: {name}d; {hint}")
        sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)

    return command


pause = _about_pairs(
    "pause", "Leave the sends in PAIRS alone until they are unpaused; they go on being pending.",
    "those that are being read now are not: say it again in a minute",
)  # fmt: skip
unpause = _about_pairs(
    "unpause", "Take paused sends in PAIRS up again, where they were.", "what fell due meanwhile is read once"
)
remove = _about_pairs(
    "remove", "Forget the sends in PAIRS: they are not read any more, and are in no book. Parts stay as they are.",
    "those that are being read now are not: say it again in a minute",
)  # fmt: skip


@click.command()
@click.argument("to", type=click.Path(path_type=Path))
@options.place
def backup(to: Path, out: str | None, state: Path | None) -> None:
    """Copy the ledger to the file TO, whole and consistent, also while it is in use.

    To restore it, stop the service and put the copy back. A ledger that goes back in time asks again for what it has
    forgotten: parts that were created since then stay, and are not known to it.

    \b
    Example:
      harvester backup /backups/ledger-$(date +%F).db
    """
    from harvester.errors import UsageError
    from harvester.ledger.sqlite import copy

    path = options.ledger_path(out, state)
    if not path.exists():
        raise UsageError(f"there is no ledger at {path}; name the output with -o, or the ledger with --state")
    if to.exists():
        raise UsageError(f"{to} exists; name a new file")
    copy(path, to)
    click.echo(f"{to}: {to.stat().st_size} bytes", err=True)


@click.command()
@options.place
@click.option("--since", default=0, show_default=True, help="Only parts stored after this one's `order`.")
def parts(out: str | None, state: Path | None, since: int) -> None:
    """List stored parts as NDJSON in the order of storing, for incremental loaders.

    \b
    Example:
      harvester parts --since 17
    """
    from harvester.ledger import books

    def following(after: int) -> "list[StoredPart]":
        return options.looked(out, state, lambda tx: books.stored_parts(tx, after=after, limit=1000))

    while page := following(since):
        for part in page:
            show.as_json(asdict(part), indent=False)
        since = page[-1].order
