"""The command group ledger: back up, copy or migrate a ledger, or rebuild a lost one."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import ledger_access, options, output, progress, startup
from harvester.errors import UsageError
from harvester.model import is_in_object_store
from harvester.place import LedgerLocation, classify_place

if TYPE_CHECKING:
    from harvester.cli.progress import Show
    from harvester.schedule import ReadingPlan


@click.group("ledger")
def ledger() -> None:
    """Back up, copy or migrate a ledger, or rebuild a lost one."""


@ledger.command()
@click.argument("to", type=options.LocalPath())
@ledger_access.ledger_command
def backup(to: Path, location: LedgerLocation) -> None:
    """Copy the ledger to the new file TO, even while it is in use.

    To restore a copy, stop all processes that use the ledger, delete its file and those whose names end with -wal and
    -shm, then move the copy there. What was captured since the copy was made is captured again. For a ledger in
    PostgreSQL, use pg_dump.

    \b
    Example:
      harvester ledger backup /backups/ledger-$(date +%F).db
    """
    from harvester.ledger import back_up_ledger

    if not isinstance(location, Path):
        raise UsageError(f"{location} is not a file: back it up with pg_dump, or copy it with harvester ledger copy")
    ledger_access.check_exists(location)
    if to.exists():
        raise UsageError(f"{to} already exists; choose another file name")
    with progress.show_work(f"copying {location}"):
        back_up_ledger(location, to)
    click.echo(f"{to}: {to.stat().st_size} bytes", err=True)


@ledger.command()
@click.argument("source", type=options.LedgerPlace(in_file=True), metavar="FROM")
@click.argument("to", type=options.LedgerPlace(in_file=True))
def copy(source: LedgerLocation, to: LedgerLocation) -> None:
    """Copy a ledger FROM a file or database TO another.

    TO is a new file or an empty database. Stop all processes that use the ledger first. All rows are compared at the
    end. From then on, only the copy can be used, because two ledgers of the same parts would capture each send twice.
    If the command is interrupted, repeat it. @FILE stands for the URL in a file, so that its password is not part of
    the command line; PGPASSFILE and service files of PostgreSQL work too.

    \b
    Examples:
      harvester ledger copy /data/ledger.db postgresql://harvester@db/harvester
      harvester ledger copy @/run/secrets/ledger_url /data/ledger.db
    """
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger

    if not ledger_access.exists(source):
        raise UsageError(f"{source} contains no ledger; FROM must be an existing ledger")
    with progress.show_work(f"copying {source}") as show:
        rows = asyncio.run(Ledger.copy(source, to, clock=SystemClock(), show=show))
    click.echo(f"copied {source} to {to}: {output.plural(rows, 'row')}. Only the copy can be used now", err=True)


@ledger.command()
@ledger_access.ledger_command
def migrate(location: LedgerLocation) -> None:
    """Upgrade the ledger to the schema of this version, while processes of the previous version use it.

    Use it before you replace replicas one after the other. A process that uses a ledger alone upgrades it when it
    starts. The command adds what this version needs. Repeat it once no process of an earlier version runs: it then
    removes what only those versions need, and you cannot return to them. If you do not repeat it, harvester serve does
    this after it has run for a day.

    \b
    Example:
      harvester ledger migrate --state postgresql://harvester@db/harvester
    """
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger

    if not ledger_access.exists(location):
        click.echo(f"there is no ledger at {location}: there is nothing to migrate", err=True)
        return
    with progress.show_work(f"migrating {location}"):
        done = asyncio.run(Ledger.migrate(location, clock=SystemClock()))
    if done.schema != done.schema_before:
        click.echo(f"upgraded {location} from schema {done.schema_before} to {done.schema}", err=True)
    if done.contracted:
        click.echo(f"removed what only versions before schema {done.contracted[-1]} need", err=True)
    if done.waits_for:
        click.echo(
            f"processes of an earlier version still use the ledger: {', '.join(done.waits_for)}. Stop or replace them, "
            "and repeat the command to remove what only they need; or harvester serve does that after a day",
            err=True,
        )
    elif done.schema == done.schema_before and not done.contracted:
        click.echo(f"{location} has schema {done.schema}: there is nothing to migrate", err=True)


@ledger.command()
@click.argument("places", nargs=-1, required=True, metavar="PLACE...", shell_complete=options.complete_path)
@options.state
@options.config
def rebuild(
    places: tuple[str, ...], state: LedgerLocation | None, state_file: Path | None, config: Path | None
) -> None:
    """Rebuild a lost ledger from the parts in each PLACE.

    PLACE is a folder or bucket of parts. If workspaces have places of their own, name all places in one command. The
    new ledger contains every captured pair, and harvester serve continues with the next reading of each. It does not
    contain pairs that were never captured, rejected pairs, or the order of harvester parts: enqueue your lists again.

    \b
    Examples:
      harvester ledger rebuild ./harvest
      harvester ledger rebuild s3://lake/braze --config harvester.toml
      harvester ledger rebuild s3://client-a/braze s3://client-b/braze --state /data/ledger.db
    """
    for each in places:
        classify_place(each, "PLACE", buckets=True)
    plans, state = _load_plans(config, state if state_file is None else ledger_access.load_state_file(state_file))
    if state is None and len(places) > 1:
        raise UsageError("with several places, name the ledger with --state or --state-file")
    location, named = ledger_access.get_location(places[0], state), " and ".join(places)
    with (
        tempfile.TemporaryDirectory(prefix="harvester-") as folder,
        progress.show_work(f"rebuilding {location}") as show,
    ):
        pairs = asyncio.run(_rebuild(places, location, plans, Path(folder), show))
    if pairs is None:
        click.echo(f"{location} is already the ledger of {named}: there is nothing to rebuild", err=True)
    else:
        click.echo(f"rebuilt the ledger {location} from {named}: {output.plural(pairs, 'pair')}", err=True)


def _load_plans(
    config: Path | None, state: LedgerLocation | None
) -> "tuple[Mapping[str, ReadingPlan], LedgerLocation | None]":
    """Return the plan of each configured workspace, and the location of the ledger if it is named."""
    from harvester.schedule import ReadingPlan
    from harvester.settings import AGES_DAYS, environment_has_workspaces

    if config is None and not environment_has_workspaces():
        return {"default": ReadingPlan(AGES_DAYS)}, state
    settings = startup.load_settings({"config": config})
    return settings.get_plans(), state or settings.load_state()


async def _rebuild(
    places: Sequence[str], location: LedgerLocation, plans: "Mapping[str, ReadingPlan]", folder: Path, show: "Show"
) -> int | None:
    """Rebuild the ledger; ``folder`` is for temporary files, and for copies of the parts in buckets."""
    from harvester.cli.latest import copy_parts
    from harvester.clock import SystemClock
    from harvester.commands.rebuild import rebuild
    from harvester.ledger import Ledger
    from harvester.storage import open_sink

    sinks = [open_sink(each) for each in places]
    for place, sink in zip(places, sinks, strict=True):
        if await sink.find_ledger_id() is None:
            raise UsageError(f"there are no parts in {place}; name the folder or bucket that was given to -o")
    datasets = []
    for number, (place, sink) in enumerate(zip(places, sinks, strict=True)):
        in_bucket = is_in_object_store(place)
        datasets.append((sink, copy_parts(place, folder / str(number), show) if in_bucket else Path(place)))
    show(f"rebuilding {location}")
    async with await Ledger.open(location, clock=SystemClock()) as new:
        return await rebuild(new, datasets, plans, temp_directory=folder)
