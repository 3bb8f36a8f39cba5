"""The command line: arguments, progress and exit codes. What a command needs is imported when it runs."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harvester import __version__
from harvester.errors import ExitCode, HarvesterError, UsageError

if TYPE_CHECKING:
    from harvester.ledger.verbs import StoredPart
    from harvester.run import Run, Summary
    from harvester.settings import Settings

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

EXIT_CODES = """\b
Exit codes: 0 complete, 1 bug, 2 usage or configuration, 3 partial (some rejected, expired,
deferred or unreadable), 4 workspace halted, 5 storage, 130 interrupted."""


class _Commands(click.Group):
    """Turns what the harvester expects to go wrong into one sentence and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarvesterError as error:
            click.echo(f"harvester: {error}", err=True)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, asyncio.CancelledError):
            click.echo("harvester: interrupted; run the same command again to go on", err=True)
            ctx.exit(ExitCode.INTERRUPTED)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_place = _options(
    click.option(
        "-o", "--out", default="./harvest", show_default=True, help="Folder for the parts; - writes rows to stdout."
    ),
    click.option(
        "--state", type=click.Path(path_type=Path, dir_okay=False), help="The ledger's file  [default: inside OUT]"
    ),
)
_logs = _options(
    click.option("--log-json", is_flag=True, help="Logs as JSON."),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="[default: info, warning on a terminal]",
    ),
)


@click.group(cls=_Commands, epilog=EXIT_CODES)
@click.version_option(__version__)
def main() -> None:
    """Capture Braze send analytics before they expire.

    \b
    Examples:
      harvester demo
      BRAZE_API_KEY=... harvester run sends.csv --endpoint https://rest.fra-01.braze.eu
    """


@main.command()
@click.argument("pairs", nargs=-1, required=True)
@_place
@click.option("--endpoint", help="Your REST endpoint  [env: BRAZE_ENDPOINT]; the key comes from BRAZE_API_KEY.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="A file that holds the API key.")
@click.option(
    "--allow-unknown-host", is_flag=True, default=None, help="Accept an endpoint that is no known Braze host."
)
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="HARVESTER_CONFIG", help="A TOML file, for several workspaces."
)
@click.option("--length", type=int, help="Days to ask for, 1 to 100  [default: 15]")
@click.option("--reserve", type=float, help="Share of the hourly budget never touched  [default: 0.2]")
@click.option("--max-rate", type=float, help="Calls per second never exceeded  [default: 1000]")
@click.option("--concurrency", type=int, help="Calls in flight at the most  [default: 64]")
@click.option("--compression", type=click.Choice(["zstd", "gzip", "none"]), help="[default: zstd]")
@click.option(
    "--max-deferrals", type=int, help="Times a failing pair is put off before it is left for the next run  [default: 4]"
)
@click.option("--force", is_flag=True, help="Ask for pairs beyond retention too.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON, to stdout (to stderr with -o -).")
@_logs
def run(pairs: tuple[str, ...], out: str, state: Path | None, **given: Any) -> None:
    """Capture the sends in PAIRS (CSV or NDJSON files, or - for stdin), once.

    Columns: campaign_id, send_id and, where known, sent_at (ISO 8601) and workspace. Killed or interrupted,
    the same command goes on where it was.

    \b
    Examples:
      harvester run sends.csv --endpoint https://rest.fra-01.braze.eu
      harvester run - -o - < sends.ndjson | head
    """
    from harvester import settings

    _set_up_logs(given)
    loaded = settings.load(
        given["config"],
        {name: given[name] for name in ("length", "concurrency", "compression", "max_deferrals")},
        {name: given[name] for name in ("endpoint", "api_key_file", "allow_unknown_host", "reserve", "max_rate")},
    )
    summary = asyncio.run(_captured(loaded, pairs, out, state, forced=given["force"]))
    _show(summary, as_json=given["as_json"], to_stderr=out == "-")
    sys.exit(summary.exit_code)


@main.command()
@click.option("-o", "--out", default="./demo-out", show_default=True, help="Folder for the parts.")
@click.option("--pairs", default=3000, show_default=True, help="How many sends the stand-in has.")
def demo(out: str, pairs: int) -> None:
    """Harvest from a stand-in API on this machine: no account, no key, no server.

    \b
    Example:
      harvester demo && harvester demo   # the second time nothing is left to ask
    """
    from pydantic import SecretStr

    from harvester.settings import Settings, Workspace
    from harvester.simulator import Simulator, SimulatorConfig

    _set_up_logs({})

    async def show() -> "Summary":
        config = SimulatorConfig(
            pairs=pairs, limit=25_000, window_seconds=60, fault_rate=0.01, latency_seconds=0.005, neighbour_share=0.1
        )
        async with Simulator(config) as simulator:
            folder = Path(out)
            folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - before anything runs beside it
            listed = folder / "pairs.csv"
            if not listed.exists():
                _write_pairs(listed, simulator)
            workspace = Workspace(endpoint=simulator.url, api_key=SecretStr(config.api_key))
            return await _captured(Settings(workspaces={"default": workspace}), (str(listed),), out, None)

    summary = asyncio.run(show())
    _show(summary, as_json=False, to_stderr=False)
    _look(Path(out))
    sys.exit(summary.exit_code)


@main.command()
@click.option("--port", default=8765, show_default=True, help="Port on 127.0.0.1.")
@click.option("--seed", default=1, show_default=True, help="All it answers follows from this and the time.")
@click.option("--pairs", default=5000, show_default=True, help="How many sends exist.")
@click.option("--write-pairs", type=click.Path(path_type=Path), help="Write the sends that exist to this CSV file.")
@click.option("--limit", default=250_000, show_default=True, help="Calls per window.")
@click.option("--window-seconds", default=3600.0, show_default=True, help="Length of a window.")
@click.option("--fault-rate", default=0.0, show_default=True, help="Share of calls that meet a fault, 0 to 1.")
@click.option("--neighbour-share", default=0.0, show_default=True, help="Share of the budget that others spend.")
@click.option("--latency-seconds", default=0.0, show_default=True, help="Time each answer takes.")
@click.option("--log", type=click.Path(path_type=Path), help="Append every answer to this NDJSON file.")
def simulate(write_pairs: Path | None, **given: Any) -> None:
    """Run the stand-in API by itself; its key is demo-key.

    \b
    Example:
      harvester simulate --write-pairs pairs.csv --fault-rate 0.05 &
      BRAZE_API_KEY=demo-key harvester run pairs.csv --endpoint http://127.0.0.1:8765
    """
    from harvester.simulator import Simulator, SimulatorConfig

    async def serve() -> None:
        async with Simulator(SimulatorConfig(**given)) as simulator:
            if write_pairs is not None:
                _write_pairs(write_pairs, simulator)
            click.echo(f"serving {given['pairs']} sends on {simulator.url}; Ctrl-C ends it", err=True)
            await asyncio.Event().wait()

    asyncio.run(serve())


@main.command()
@_place
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(out: str, state: Path | None, *, as_json: bool) -> None:
    """Show the books: accepted = captured + rejected + expired + pending.

    \b
    Example:
      harvester status -o ./harvest
    """
    from harvester.ledger.verbs import batch_counts, books, halted, last_rejections, reading_counts

    balance, readings, batches, stopped, rejected = _asked(
        out, state,
        lambda tx: (books(tx), reading_counts(tx), batch_counts(tx), halted(tx), last_rejections(tx, limit=5)),
    )  # fmt: skip
    if as_json:
        _json({"books": _books(balance), "readings": readings, "batches": batches, "halted": stopped})
        return
    for line in _book_lines(balance):
        click.echo(line)
    click.echo("readings   " + ", ".join(f"{count} {name}" for name, count in sorted(readings.items())))
    click.echo("batches    " + (", ".join(f"{count} {name}" for name, count in sorted(batches.items())) or "none"))
    for name, because in stopped.items():
        click.echo(f"halted     {name}: {because}")
    for pair, reason, detail in rejected:
        click.echo(f"rejected   {pair.campaign_id} {pair.send_id!r}: {reason}: {detail}")


@main.command()
@_place
@click.option("--outcome", type=click.Choice(["rejected", "expired"]), required=True, help="Which pairs.")
@click.option("--reason", help="Only those rejected for this reason, such as status_400.")
def requeue(out: str, state: Path | None, outcome: str, reason: str | None) -> None:
    """Give rejected or expired pairs another chance; the next run asks for them.

    \b
    Example:
      harvester requeue --outcome rejected --reason status_404
    """
    import time

    from harvester.ledger.verbs import requeue as requeued

    count = _asked(out, state, lambda tx: requeued(tx, outcome=outcome, reason=reason, now=time.time()))
    click.echo(f"{count} pairs are pending again")


@main.command()
@_place
@click.option("--since", default=0, show_default=True, help="Only parts stored after this one's `order`.")
def parts(out: str, state: Path | None, since: int) -> None:
    """List stored parts as NDJSON in the order of storing, for incremental loaders.

    \b
    Example:
      harvester parts --since 17
    """
    from dataclasses import asdict

    from harvester.ledger.verbs import stored_parts

    def page(after: int) -> "list[StoredPart]":
        return _asked(out, state, lambda tx: stored_parts(tx, after=after, limit=1000))

    while following := page(since):
        for part in following:
            _json(asdict(part), indent=False)
        since = following[-1].order


async def _captured(
    settings: "Settings", pairs: tuple[str, ...], out: str, state: Path | None, *, forced: bool = False
) -> "Summary":
    """Open ledger, sink and input, and run."""
    import contextlib
    import tempfile

    from harvester.clock import SystemClock
    from harvester.ledger import Ledger
    from harvester.run import Run, state_of
    from harvester.sinks import Compression, FolderSink, Sink, StdoutSink
    from harvester.sources import Input, RejectsFile

    clock = SystemClock()
    listed = Input(pairs, workspaces=list(settings.workspaces), stdin=sys.stdin.buffer, now=clock.wall())
    with contextlib.ExitStack() as stack:
        sink: Sink
        if out == "-":
            sink, compression = StdoutSink(sys.stdout.buffer), Compression.NONE
            if state is None:  # rows that went down a pipe cannot be gone on from, so nothing is kept
                state = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ledger.db"
        else:
            sink, compression = FolderSink(Path(out)), Compression(settings.compression)
        path = state_of(out, state)
        async with await Ledger.open(path, clock=clock) as ledger:
            job = Run(settings, ledger=ledger, sink=sink, clock=clock, compression=compression)
            rejects = RejectsFile(path.with_name("rejects.ndjson"))
            progress = asyncio.create_task(_progress(job), name="progress") if sys.stderr.isatty() else None
            try:
                return await job.capture(listed, rejects, forced=forced)
            finally:
                if progress is not None:
                    progress.cancel()
                    await asyncio.wait([progress])


async def _progress(job: "Run") -> None:
    """Show a line for each workspace while the run lasts."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        while True:
            lines = []
            for name, (harvest, pacer) in job.progress().items():
                pace = pacer.state()
                done = sum(harvest.tally.outcomes.values())
                line = (
                    f"{name}: {done} pairs done, {pace.calls} calls, {pace.pace:.0f}/s, "
                    f"budget {pace.remaining} of {pace.limit} left (reserve {pace.reserve_calls})"
                )
                if pace.held_because:
                    line += f", waiting for {pace.held_because}: {pace.held_seconds:.0f} s"
                lines.append(line)
            live.update(Text("\n".join(lines) or "reading pairs"))
            await asyncio.sleep(0.25)


def _asked(out: str, state: Path | None, verb: Callable[[Any], T]) -> T:
    """Run one verb on a ledger that exists already."""
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger
    from harvester.run import state_of

    path = state_of(out, state)
    if not path.exists():
        raise UsageError(f"there is no ledger at {path}; name the output with -o, or the ledger with --state")

    async def ask() -> T:
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            return await ledger.do(verb)

    return asyncio.run(ask())


def _set_up_logs(given: dict[str, Any]) -> None:
    from harvester.telemetry import set_up_logs

    level = given.get("log_level") or ("warning" if sys.stderr.isatty() or not given else "info")
    set_up_logs(json=given.get("log_json", False), level=level)


def _write_pairs(path: Path, simulator: Any) -> None:
    import csv
    from datetime import UTC, datetime

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["campaign_id", "send_id", "sent_at"])
        for each in simulator.population:
            writer.writerow(
                [each.pair.campaign_id, each.pair.send_id, datetime.fromtimestamp(each.sent_at, UTC).isoformat()]
            )


def _books(balance: Any) -> dict[str, Any]:
    return {
        "accepted": balance.accepted,
        "captured": {verdict.value: count for verdict, count in balance.captured.items()},
        "rejected": dict(balance.rejected),
        "expired": balance.expired, "pending": balance.pending, "balanced": balance.balanced,
    }  # fmt: skip


def _book_lines(balance: Any) -> list[str]:
    captured = ", ".join(f"{count} {verdict}" for verdict, count in sorted(balance.captured.items())) or "0"
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(balance.rejected.items())) or "0"
    return [
        f"accepted   {balance.accepted} pairs" + ("" if balance.balanced else "   THE BOOKS DO NOT BALANCE"),
        f"captured   {captured}",
        f"rejected   {rejected}",
        f"expired    {balance.expired}",
        f"pending    {balance.pending}",
    ]


def _show(summary: "Summary", *, as_json: bool, to_stderr: bool) -> None:
    """Print the summary: for people to stderr, for machines to stdout."""
    if as_json:
        _json(
            {
                "books": _books(summary.books), "lines": summary.lines, "bad_lines": summary.bad_lines,
                "rejects_file": summary.rejects_file, "parts": summary.parts, "rows": summary.rows,
                "part_bytes": summary.part_bytes, "calls": dict(summary.calls), "answers": dict(summary.answers),
                "throttled": summary.throttled, "waited_seconds": round(summary.waited_seconds, 3),
                "halted": summary.halted, "exit_code": int(summary.exit_code),
            },
            to_stderr=to_stderr,
        )  # fmt: skip
        return
    lines = _book_lines(summary.books)
    lines.append(f"wrote      {summary.rows} rows in {summary.parts} parts, {summary.part_bytes / 1e6:.1f} MB")
    calls = ", ".join(f"{count} {name}" for name, count in sorted(summary.answers.items())) or "none"
    lines.append(f"answers    {calls}; waited {summary.waited_seconds:.1f} s for budget")
    if summary.bad_lines:
        lines.append(f"unread     {summary.bad_lines} of {summary.lines} lines, see {summary.rejects_file}")
    if summary.naive_times:
        lines.append(f"note       {summary.naive_times} times without a zone were taken as UTC")
    lines += [f"halted     {name}: {because}" for name, because in summary.halted.items()]
    if summary.books.pending:
        lines.append("Some pairs are pending: run the same command again to go on.")
    click.echo("\n".join(lines), err=True)


def _look(folder: Path) -> None:
    """Show what was harvested, as any DuckDB user would ask it."""
    import duckdb

    query = (
        "SELECT channel, count(DISTINCT (campaign_id, send_id)) AS pairs, sum(sent)::BIGINT AS sent, "
        "sum(conversions)::BIGINT AS conversions FROM read_json(?, union_by_name = true) "
        "WHERE level = 'variation' GROUP BY channel ORDER BY sent DESC"
    )
    parts = f"{folder}/send_analytics/*/*.ndjson.zst"
    click.echo(f"\n{query.replace('?', repr(parts))};\n{duckdb.sql(query, params=[parts])}")


def _json(value: dict[str, Any], *, indent: bool = True, to_stderr: bool = False) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode(), err=to_stderr)
