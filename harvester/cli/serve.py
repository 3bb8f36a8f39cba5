"""The command of the long-lived process: serve."""

import sys
from typing import Any

import click

from harvester.cli import options
from harvester.cli.capture import opened
from harvester.errors import ExitCode, UsageError


@click.command()
@options.place
@options.workspace
@options.pace
@click.option("--until-idle", is_flag=True, help="End once the queues are empty and nothing is due.")
@options.logs
def serve(*, until_idle: bool, **given: Any) -> None:
    """Follow each send until its window closes.

    Sends come by message, parts go out, for as long as it runs. A SIGTERM lets what is in flight land, and ends
    it within 25 seconds. Without triggers it serves what others enqueue.

    \b
    Examples:
      harvester serve --config harvester.toml
      harvester serve --config harvester.toml --until-idle   # one container per trigger, or cron
    """
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger
    from harvester.service.service import Service
    from harvester.sources.brokers import create_broker

    options.set_up_logs(given, lasting=True)
    settings = options.settings_of(given)
    if settings.out == "-":
        raise UsageError("serve writes to a folder or a bucket: name one with -o")
    options.check_surroundings()
    settings.load_keys()  # a start that fails leaves nothing behind
    for name, each in settings.triggers.items():
        try:
            create_broker(each.kind, **each.options())
        except UsageError as error:
            raise UsageError(f"triggers.{name}: {error}") from None

    async def served() -> ExitCode:
        with opened(settings) as (sink, compression, path):
            await options.check_new_ledger(sink, path)
            async with await Ledger.open(path, clock=SystemClock()) as ledger:
                service = Service(settings, ledger=ledger, sink=sink, compression=compression, until_idle=until_idle)
                return await service.serve()

    with options.traced():
        code = options.awaited(served())
    sys.exit(code)
