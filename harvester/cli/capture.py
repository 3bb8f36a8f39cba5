"""Commands around a historical capture: run, and what goes before it (plan, doctor)."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, show
from harvester.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harvester.commands.capture import Summary
    from harvester.commands.doctor import Finding
    from harvester.commands.estimate import Plan
    from harvester.model import Books
    from harvester.settings import Settings
    from harvester.sources import Input, RejectsFile
    from harvester.storage import Compression, Sink


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1)
@options.place_or_pipe
@options.workspace
@options.pace
@options.patience
@click.option("--force", is_flag=True, help="Ask for sends too that are so old that their analytics should be gone.")
@click.option("--json", is_flag=True, help="The summary as JSON, to stdout (to stderr with -o -).")
@options.logs
def run(pairs: tuple[str, ...], **given: Any) -> None:
    """Capture the sends in PAIRS, once.

    PAIRS are CSV, NDJSON or Parquet files, folders of Currents, or - for stdin. Columns: campaign_id, send_id and,
    where known, sent_at (ISO 8601) and workspace. Killed or interrupted, the same command goes on where it was;
    without PAIRS it works off what the ledger holds. When the reader of -o - goes away, the run ends with 0; with
    --state, the next one goes on, and writes again what was not taken.

    \b
    Examples:
      harvester run sends.csv --endpoint https://rest.fra-01.braze.eu
      harvester run s3://lake/sends.parquet -o s3://lake/braze
      harvester run - -o - < sends.ndjson | head
    """
    options.set_up_logs(given)
    settings = options.settings_of(given)
    options.check_surroundings()
    settings.load_keys()  # a start that fails leaves nothing behind
    if not pairs and not options.ledger_path(settings.out, settings.state).exists():
        raise UsageError("name a file of pairs, such as: harvester run sends.csv")
    with options.traced():
        done = options.awaited(captured(settings, pairs, forced=given["force"]))
    show.summary(done, json=given["json"], to_stderr=settings.out == "-")
    if done.problem is not None:
        raise done.problem
    sys.exit(done.exit_code)


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@options.ledger
@options.listed
@options.reach
@click.option("--limit", default=250_000, show_default=True, type=click.IntRange(1), help="Calls it has in an hour.")
@click.option(
    "--reserve",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the hourly budget never touched.",
)
@click.option(
    "--max-rate",
    default=1000.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Calls per second never exceeded.",
)
@click.option("--json", is_flag=True, help="The same as JSON.")
def plan(pairs: tuple[str, ...], path: Path, workspaces: list[str], **given: Any) -> None:
    """Estimate what capturing PAIRS takes. Makes no call.

    Shows calls, minutes, share of the budget, and deadlines that would be missed. The estimate is for one workspace,
    with the budget of --limit, --reserve and --max-rate. The other workspace options of harvester run, such as
    --endpoint, are accepted and ignored. Ends with 3 if lines could not be read, and shows the first reasons.

    \b
    Example:
      harvester plan sends.csv --reserve 0.5
    """
    from dataclasses import asdict

    ahead, balance, listed, rejects = asyncio.run(_planned(pairs, path, workspaces, given))
    settled = balance.accepted - balance.pending - balance.expired
    _, difference = options.known_time(path)
    click.echo(show.clock_line(difference), err=True)
    if given["json"]:
        unread = {"bad_lines": rejects.count, "bad_line_reasons": rejects.reasons}
        show.as_json(
            asdict(ahead) | {"settled": settled, "expired": balance.expired} | unread | {"notes": listed.notes}
        )
    else:
        unread_lines = show.unread_lines(rejects.count, listed.lines, rejects.reasons)
        counts = {"settled": settled, "expired": balance.expired, "limit": given["limit"]}
        lines = show.plan_lines(ahead, **counts, unread=unread_lines)
        click.echo("\n".join([*lines, *show.skipped_lines(listed.skipped), *show.note_lines(listed.notes)]))
    sys.exit(ExitCode.PARTIAL if rejects.count else ExitCode.COMPLETE)


async def _planned(
    pairs: tuple[str, ...], path: Path, workspaces: list[str], given: dict[str, Any]
) -> "tuple[Plan, Books, Input, RejectsFile]":
    """Enqueue into a copy of the ledger, and look at what is pending there."""
    from harvester.clock import SystemClock
    from harvester.commands.capture import enqueue_all
    from harvester.commands.estimate import plan as planned
    from harvester.ledger import Ledger, copy_ledger
    from harvester.sources import Input, RejectsFile

    with tempfile.TemporaryDirectory(prefix="harvester-") as folder:
        draft = Path(folder) / "ledger.db"
        if path.exists():  # noqa: ASYNC240 - nothing runs beside it
            copy_ledger(path, draft)
        async with await Ledger.open(draft, clock=SystemClock()) as ledger:
            now = ledger.clock.wall()
            listed = Input(pairs, workspaces=list(workspaces), stdin=sys.stdin.buffer, now=now)
            rejects = RejectsFile(Path(folder) / "rejects.ndjson")
            async with show.reading(listed):
                async for _ in enqueue_all(ledger, listed, rejects):
                    pass
            for workspace in workspaces:
                await ledger.upkeep.schedule_due(workspace, trust_clock=True)
                await ledger.upkeep.expire(workspace, trust_clock=True)
            limits = {name: given[name] for name in ("limit", "reserve", "max_rate")}
            ahead = planned(await ledger.reports.list_deadlines(), now=now, **limits)
            balance = await ledger.reports.get_books()
    return ahead, balance, listed, rejects


@click.command()
@options.place
@options.workspace
def doctor(**given: Any) -> None:
    """Check key, endpoint, clock, ledger and sink; say what to mend.

    That the key has the permission too is found out by one call for each workspace.

    \b
    Example:
      harvester doctor --endpoint https://rest.fra-01.braze.eu -o s3://lake/braze
    """
    from harvester.clock import SystemClock
    from harvester.commands.doctor import examine

    settings = options.settings_of(given)
    if settings.out == "-":
        raise UsageError("doctor examines a folder or a bucket: name one with -o")

    async def look() -> "list[Finding]":
        with opened(settings) as (sink, _, path):
            return await examine(settings, ledger=path, sink=sink, clock=SystemClock())

    findings = asyncio.run(look())
    for finding in findings:
        click.echo(f"{'well ' if finding.well else 'WRONG'}  {finding.subject}: {finding.text}")
    sys.exit(ExitCode.COMPLETE if all(finding.well for finding in findings) else ExitCode.USAGE)


@contextlib.contextmanager
def opened(settings: "Settings") -> "Iterator[tuple[Sink, Compression, Path]]":
    """Choose the sink that ``out`` names, and the ledger's file."""
    from harvester.storage import Compression

    out, state, sink = settings.out, settings.state, options.sink_of(settings.out)
    if out != "-":
        yield sink, Compression(settings.compression), options.ledger_path(out, state)
        return
    with tempfile.TemporaryDirectory(prefix="harvester-") as folder:
        # Rows that went down a pipe cannot be gone on from, so without --state nothing is kept.
        yield sink, Compression.NONE, state or Path(folder) / "ledger.db"


async def captured(settings: "Settings", pairs: tuple[str, ...], *, forced: bool = False) -> "Summary":
    """Open input, sink and ledger, and run, with a progress view where a person looks on."""
    with options.importing():
        from harvester.clock import SystemClock
        from harvester.commands.capture import Run
        from harvester.ledger import Ledger
        from harvester.sources import Input, RejectsFile

    with opened(settings) as (sink, compression, path):
        await options.check_new_ledger(sink, path)
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            workspaces = list(settings.workspaces)
            listed = Input(
                pairs, workspaces=workspaces, stdin=sys.stdin.buffer, now=ledger.clock.wall(), confirmed=False
            )
            job = Run(settings, ledger=ledger, sink=sink, compression=compression)
            rejects = RejectsFile(path.with_name("rejects.ndjson"))
            view = asyncio.create_task(show.progress(job), name="progress") if sys.stderr.isatty() else None
            try:
                return await job.capture(listed, rejects, forced=forced)
            finally:
                if view is not None:
                    view.cancel()
                    await asyncio.wait([view])
