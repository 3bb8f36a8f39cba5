"""The commands run, plan and doctor."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, progress, show
from harvester.cli.summary import print_summary
from harvester.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harvester.commands.capture import Summary
    from harvester.commands.doctor import Finding
    from harvester.commands.estimate import Estimate
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
@click.option("--force", is_flag=True, help="Also request sends that are older than 15 days.")
@click.option("--json", is_flag=True, help="Print the summary as JSON to stdout (with -o - to stderr).")
@options.logs
def run(pairs: tuple[str, ...], **given: Any) -> None:
    """Capture a list of sends once.

    PAIRS are CSV, NDJSON or Parquet files, folders of Currents, or - for stdin. Columns: campaign_id and send_id,
    optionally sent_at (ISO 8601) and workspace. If the command is killed or interrupted, the same command continues.
    Without PAIRS it captures what is pending in the ledger. With -o -, the command ends with 0 when the reader closes
    the pipe; with --state, the next run continues and writes the rows that were not read.

    \b
    Examples:
      harvester run sends.csv --endpoint https://rest.fra-01.braze.eu
      harvester run s3://lake/sends.parquet -o s3://lake/braze
      harvester run - -o - < sends.ndjson | head
    """
    options.set_up_logs(given)
    settings = options.settings_of(given)
    options.check_environment()
    settings.load_keys()  # before anything is created
    if not pairs and not options.ledger_path(settings.out, settings.state).exists():
        raise UsageError("there is no list and no ledger; name a list, such as: harvester run sends.csv")
    with options.traced():
        done = options.awaited(run_capture(settings, pairs, forced=given["force"]))
    print_summary(done, json=given["json"], to_stderr=settings.out == "-")
    if done.problem is not None:
        raise done.problem
    sys.exit(done.exit_code)


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1, required=True)
@options.ledger
@options.listed
@options.reach
@click.option(
    "--limit",
    default=250_000,
    show_default=True,
    type=click.IntRange(1),
    help="The quota: requests per hour.",
)
@click.option(
    "--reserve",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="The share of the hourly quota that stays free.",
)
@click.option(
    "--max-rate",
    default=1000.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="The most requests per second.",
)
@click.option("--json", is_flag=True, help="Print JSON.")
def plan(pairs: tuple[str, ...], path: Path, workspaces: list[str], **given: Any) -> None:
    """Estimate the requests, time and quota a capture needs. Sends nothing.

    Also shows how many pairs would expire before their turn. The estimate is for one workspace, with the quota of
    --limit, --reserve and --max-rate. Other options of harvester run, such as --endpoint, are accepted and ignored. The
    exit code is 3 if lines could not be read.

    \b
    Example:
      harvester plan sends.csv --reserve 0.5
    """
    from dataclasses import asdict

    ahead, balance, listed, rejects = asyncio.run(_estimate(pairs, path, workspaces, given))
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


async def _estimate(
    pairs: tuple[str, ...], path: Path, workspaces: list[str], given: dict[str, Any]
) -> "tuple[Estimate, Books, Input, RejectsFile]":
    """Enqueue the pairs in a copy of the ledger, and estimate what is pending there."""
    from harvester.clock import SystemClock
    from harvester.commands.capture import enqueue_all
    from harvester.commands.estimate import estimate
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
            async with progress.reading(listed):
                async for _ in enqueue_all(ledger, listed, rejects):
                    pass
            for workspace in workspaces:
                await ledger.upkeep.schedule_due(workspace, trust_clock=True)
                await ledger.upkeep.expire(workspace, trust_clock=True)
            limits = {name: given[name] for name in ("limit", "reserve", "max_rate")}
            ahead = estimate(await ledger.reports.list_deadlines(), now=now, **limits)
            balance = await ledger.reports.get_books()
    return ahead, balance, listed, rejects


@click.command()
@options.place
@options.workspace
def doctor(**given: Any) -> None:
    """Check key, endpoint, clock, ledger and parts.

    Says what to correct. Sends one request per workspace, to check the key's permission.

    \b
    Example:
      harvester doctor --endpoint https://rest.fra-01.braze.eu -o s3://lake/braze
    """
    from harvester.clock import SystemClock
    from harvester.commands.doctor import run_checks

    settings = options.settings_of(given)
    if settings.out == "-":
        raise UsageError("doctor checks a folder or a bucket; name one with -o")

    async def check() -> "list[Finding]":
        with opened(settings) as (sink, _, path):
            return await run_checks(settings, ledger=path, sink=sink, clock=SystemClock())

    findings = asyncio.run(check())
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject}: {finding.text}")
    sys.exit(ExitCode.COMPLETE if all(finding.ok for finding in findings) else ExitCode.USAGE)


@contextlib.contextmanager
def opened(settings: "Settings") -> "Iterator[tuple[Sink, Compression, Path]]":
    """Return the sink that ``out`` names, the compression, and the path of the ledger."""
    from harvester.storage import Compression

    out, state, sink = settings.out, settings.state, options.sink_of(settings.out)
    if out != "-":
        yield sink, Compression(settings.compression), options.ledger_path(out, state)
        return
    with tempfile.TemporaryDirectory(prefix="harvester-") as folder:
        # Rows in a pipe cannot be found again, so without --state the ledger is temporary.
        yield sink, Compression.NONE, state or Path(folder) / "ledger.db"


async def run_capture(settings: "Settings", pairs: tuple[str, ...], *, forced: bool = False) -> "Summary":
    """Open list, sink and ledger, and capture, with progress on a terminal."""
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
            async with progress.capturing(job):
                return await job.capture(listed, rejects, forced=forced)
