"""Commands about a ledger: status, requeue, parts."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import options, show
from harvester.clock import SystemClock

if TYPE_CHECKING:
    from harvester.ledger.books import StoredPart

AT_RISK_SECONDS = 86_400.0


@click.command()
@options.place
@click.option("--json", is_flag=True, help="As JSON.")
def status(out: str | None, state: Path | None, *, json: bool) -> None:
    """Show the books: accepted = captured + rejected + expired + pending.

    \b
    Example:
      harvester status -o ./harvest
    """
    from harvester.ledger import books

    soon = SystemClock().wall() + AT_RISK_SECONDS
    balance, readings, batches, halted, at_risk, rejected = options.asked(
        out,
        state,
        lambda tx: (
            books.books(tx),
            books.reading_counts(tx),
            books.batch_counts(tx),
            books.halted(tx),
            books.expiring(tx, before=soon),
            books.last_rejections(tx, limit=5),
        ),
    )
    if json:
        figures = {"readings": readings, "batches": batches, "halted": halted, "at_risk": at_risk}
        show.as_json({"books": show.books(balance), **figures})
        return
    lines = show.book_lines(balance)
    lines.append("readings   " + ", ".join(f"{count} {name}" for name, count in sorted(readings.items())))
    lines.append("batches    " + (", ".join(f"{count} {name}" for name, count in sorted(batches.items())) or "none"))
    lines.append(f"at risk    {at_risk} pending pairs expire within a day")
    lines += [f"halted     {name}: {because}" for name, because in halted.items()]
    lines += [f"rejected   {pair.campaign_id} {pair.send_id!r}: {reason}: {why}" for pair, reason, why in rejected]
    click.echo("\n".join(lines))


@click.command()
@options.place
@click.option("--outcome", type=click.Choice(["rejected", "expired"]), required=True, help="Which pairs.")
@click.option("--reason", help="Only those rejected for this reason, such as status_400.")
def requeue(out: str | None, state: Path | None, outcome: str, reason: str | None) -> None:
    """Give rejected or expired pairs another chance; the next run asks for them.

    \b
    Example:
      harvester requeue --outcome rejected --reason status_404
    """
    from harvester.ledger import intake

    count = options.asked(
        out, state, lambda tx: intake.requeue(tx, outcome=outcome, reason=reason, now=SystemClock().wall())
    )
    click.echo(f"{count} pairs are pending again; harvester run takes them up")


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
        return options.asked(out, state, lambda tx: books.stored_parts(tx, after=after, limit=1000))

    while page := following(since):
        for part in page:
            show.as_json(asdict(part), indent=False)
        since = page[-1].order
