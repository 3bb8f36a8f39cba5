"""The command run: captures a list of sends once."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import ledger_access, options, progress, startup, streams
from harvester.cli.output import check_stdout
from harvester.cli.summary import print_summary
from harvester.errors import UsageError

if TYPE_CHECKING:
    from harvester.cli.short_log import ShortLog
    from harvester.commands.summary import Summary
    from harvester.place import LedgerLocation
    from harvester.settings import Settings
    from harvester.sources import ListOptions
    from harvester.storage import Compression, Sink


@click.command()
@click.argument("pairs", type=options.ListedPlace(), nargs=-1)
@options.place_or_pipe
@options.workspace
@options.capture
@options.list_options
@click.option(
    "--patience-seconds",
    type=float,
    help="End when nothing has succeeded for this long; run the same command again to continue.  [default: 240]",
)
@click.option("--force", is_flag=True, help="Also request sends that are older than 15 days.")
@click.option("--json", is_flag=True, help="Print the summary as JSON to stdout (with -o - to stderr).")
@options.verbose
@options.logs
def run(pairs: tuple[str, ...], list_options: "ListOptions", **arguments: Any) -> None:
    """Capture a list of sends once.

    PAIRS are CSV, JSON, Avro, Parquet or Excel files, folders of them or of Currents, or - for stdin. Their columns are
    campaign_id and send_id, and optionally sent_at and workspace. Without PAIRS, the command captures what is pending
    in the ledger. A long list is captured while it is read. If the command is killed or interrupted, run it again to
    continue.

    With -o -, the command ends with 0 when the reader closes the pipe. With --state, the next run then continues, and
    writes the interrupted part again, so some rows may repeat.

    \b
    Examples:
      harvester run sends.csv --endpoint https://rest.fra-01.braze.eu
      harvester run s3://lake/sends.parquet -o s3://lake/braze
      harvester run - -o - < sends.ndjson | head
    """
    log = startup.set_up_logs(arguments)
    settings = startup.load_settings(arguments)
    startup.check_environment(settings)
    if arguments["json"]:
        check_stdout("omit --json")  # now, since a capture may take hours
    settings.load_keys()  # before anything is created
    state = settings.load_state()
    if not pairs and not ledger_access.exists(ledger_access.get_location(settings.out, state)):
        raise UsageError("there is no list and no ledger; name a list, such as: harvester run sends.csv")
    with startup.send_traces():
        done = startup.run_async(run_capture(settings, pairs, list_options, forced=arguments["force"], log=log))
    for line in log.list_repeated() if log else ():
        click.echo(line, err=True)
    print_summary(done, json=arguments["json"], to_stderr=settings.out == "-", verbose=arguments["verbose"])
    if done.problem is not None:
        raise done.problem
    sys.exit(done.exit_code)


@contextlib.contextmanager
def open_output(settings: "Settings") -> "Iterator[tuple[Sink, Compression, LedgerLocation]]":
    """Return the sink that ``out`` names, the compression, and the location of the ledger.

    Raises ``UsageError`` for standard output that is closed, or beside the place of a workspace.
    """
    from harvester.storage import Compression, open_sink

    out, state, sink = settings.out, settings.load_state(), open_sink(settings.out)
    if out != "-":
        yield sink, Compression(settings.compression), ledger_access.get_location(out, state)
        return
    check_stdout("write to a place with -o")
    if own := [name for name, each in settings.workspaces.items() if each.out is not None]:
        raise UsageError(f"-o - writes the rows of all workspaces to stdout, but workspaces.{own[0]}.out is set")
    with tempfile.TemporaryDirectory(prefix="harvester-") as folder:
        # Rows in a pipe cannot be read again, so the ledger is temporary without --state.
        yield sink, Compression.NONE, state or Path(folder) / "ledger.db"


async def run_capture(
    settings: "Settings",
    pairs: tuple[str, ...],
    list_options: "ListOptions | None" = None,
    *,
    forced: bool = False,
    log: "ShortLog | None" = None,
) -> "Summary":
    """Open list, sink and ledger, and capture, with progress on a terminal."""
    with startup.without_collection():
        from harvester.clock import SystemClock
        from harvester.commands.capture import Run
        from harvester.ledger import Ledger
        from harvester.sources import Input, RejectsFile

    with open_output(settings) as (sink, compression, location):
        await ledger_access.check_new_ledger(location, settings.list_places())
        async with await Ledger.open(location, clock=SystemClock()) as ledger:
            workspaces = list(settings.workspaces)
            listed = Input(
                pairs,
                workspaces=workspaces,
                stdin=streams.get_stdin(),
                now=ledger.clock.wall(),
                confirmed=False,
                options=list_options,
            )
            job = Run(settings, ledger=ledger, sink=sink, compression=compression)
            rejects = RejectsFile(ledger_access.get_rejects_folder(settings.out, location) / "rejects.ndjson")
            async with progress.show_capture(job, listed, log, workspaces=len(workspaces)):
                return await job.capture(listed, rejects, forced=forced)
