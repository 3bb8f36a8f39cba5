"""The command show: what became of one send."""

import asyncio
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from harvester.cli import ledger_access, output
from harvester.errors import ExitCode, UsageError
from harvester.place import LedgerLocation
from harvester.text import printable

if TYPE_CHECKING:
    from harvester.ledger import SendSearch

MAX_SENDS = 1000


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="[CAMPAIGN_ID] SEND_ID")
@ledger_access.reading_command
@click.option("--workspace", "named", multiple=True, help="Only this workspace; repeat for more.  [default: all]")
@click.option("--json", is_flag=True, help="Print JSON.")
def show(
    ids: tuple[str, ...],
    location: LedgerLocation,
    configured: Collection[str] | None,
    named: tuple[str, ...],
    *,
    json: bool,
) -> None:
    """Print the history of a send.

    Prints its times, its readings with their verdicts and parts, the next reading, and why it waits or failed. If
    several workspaces or campaigns use the send id, prints each of these sends. The command changes nothing, and can
    run while a service uses the ledger. With --config, it knows which workspaces the service serves. The exit code is 3
    if the ledger does not contain the send.

    \b
    Examples:
      harvester show autumn-1
      harvester show 6f2c autumn-1 --workspace eu --json
    """
    from harvester.commands.show import as_dict, explain_unknown, list_facts

    ids = tuple(each.strip() for each in ids)
    if len(ids) > 2:
        raise UsageError("show takes a send id, or a campaign id and a send id")
    ledger_access.check_exists(location)
    found = asyncio.run(_find(location, ids, named))
    if json:
        sends = [as_dict(each, found, configured) for each in found.sends]
        output.print_json({"sends": sends, "more": found.more})
    for each in () if json else found.sends:
        pair = each.pair
        click.echo(f'send       {pair.send_id!r} of campaign {pair.campaign_id!r} in workspace "{pair.workspace}"')
        for name, text in list_facts(each, found, configured):
            click.echo(f"{name:<10} {printable(text)}")
    if found.more:
        click.echo(f"only the first {MAX_SENDS} are printed; name the campaign, or a --workspace", err=True)
    if not found.sends:
        where = f" in workspace {output.quote(named)}" if named else ""
        unknown = f"{location} does not contain the send {' '.join(map(repr, ids))}{where}"
        click.echo(f"harvester: {unknown}; {explain_unknown(found)}", err=True)
        sys.exit(ExitCode.PARTIAL)


async def _find(location: LedgerLocation, ids: tuple[str, ...], workspaces: tuple[str, ...]) -> "SendSearch":
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger

    campaign_id = ids[0] if len(ids) == 2 else None
    async with Ledger.open_to_read(location, clock=SystemClock()) as reports:
        return await reports.find_sends(ids[-1], campaign_id=campaign_id, workspaces=workspaces, limit=MAX_SENDS)
