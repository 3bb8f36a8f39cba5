"""The command group ledger: back up a ledger, or rebuild a lost one."""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harvester.cli import ledger_access, options, output, startup
from harvester.errors import UsageError
from harvester.place import PlaceKind, classify_place

if TYPE_CHECKING:
    from harvester.schedule import ReadingPlan


@click.group("ledger")
def ledger() -> None:
    """Back up a ledger, or rebuild a lost one."""


@ledger.command()
@click.argument("to", type=options.LocalPath())
@ledger_access.ledger_command
def backup(to: Path, path: Path) -> None:
    """Copy the ledger to the new file TO, even while it is in use.

    To restore a copy, stop all processes that use the ledger, then put the copy in its place. What was captured since
    the copy was made is captured again.

    \b
    Example:
      harvester ledger backup /backups/ledger-$(date +%F).db
    """
    from harvester.ledger import copy_ledger

    ledger_access.check_exists(path)
    if to.exists():
        raise UsageError(f"{to} already exists; choose another file name")
    copy_ledger(path, to)
    click.echo(f"{to}: {to.stat().st_size} bytes", err=True)


@ledger.command()
@click.argument("place", shell_complete=options.complete_path)
@options.state
@options.config
def rebuild(place: str, state: Path | None, config: Path | None) -> None:
    """Rebuild a lost ledger from the parts in PLACE.

    PLACE is the folder or bucket of the parts. The new ledger contains every captured pair, and harvester serve
    continues with the next reading of each. It does not contain pairs that were never captured, rejected pairs, or the
    order of harvester parts: enqueue your lists again.

    \b
    Examples:
      harvester ledger rebuild ./harvest
      harvester ledger rebuild s3://lake/braze --config harvester.toml
    """
    kind = classify_place(place, "PLACE", buckets=True)
    plans, configured_state = _load_plans(config)
    path = ledger_access.get_ledger_path(place, state or configured_state)
    with tempfile.TemporaryDirectory(prefix="harvester-") as folder:
        pairs = asyncio.run(_rebuild(place, path, plans, Path(folder), copying=kind is PlaceKind.BUCKET))
    if pairs is None:
        click.echo(f"{path} is already the ledger of {place}: there is nothing to rebuild", err=True)
    else:
        click.echo(f"rebuilt the ledger {path} from {place}: {output.plural(pairs, 'pair')}", err=True)


def _load_plans(config: Path | None) -> "tuple[Mapping[str, ReadingPlan], Path | None]":
    """Return the plan of each configured workspace, and the configured path of the ledger."""
    from harvester.schedule import ReadingPlan
    from harvester.settings import AGES_DAYS, environment_has_workspaces

    if config is None and not environment_has_workspaces():
        return {"default": ReadingPlan(AGES_DAYS)}, None
    settings = startup.load_settings({"config": config})
    return settings.get_plans(), settings.state


async def _rebuild(
    place: str, path: Path, plans: "Mapping[str, ReadingPlan]", folder: Path, *, copying: bool
) -> int | None:
    """Rebuild the ledger at ``path``; ``folder`` is for temporary files, and for copies of a bucket's parts."""
    from harvester.cli.latest import copy_parts
    from harvester.clock import SystemClock
    from harvester.commands.rebuild import rebuild
    from harvester.ledger import Ledger

    sink = ledger_access.create_sink(place)
    if await sink.find_owner() is None:
        raise UsageError(f"there are no parts in {place}; name the folder or bucket that was given to -o")
    parts = copy_parts(place, folder) if copying else Path(place)
    async with await Ledger.open(path, clock=SystemClock()) as new:
        return await rebuild(new, sink, parts, plans, temp_directory=folder)
