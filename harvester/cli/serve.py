"""The command serve: the long-lived process."""

import sys
from typing import Any

import click

from harvester.cli import ledger_access, options, startup
from harvester.cli.run import open_output
from harvester.errors import ExitCode, UsageError


@click.command()
@options.place
@options.workspace
@options.capture
@click.option("--until-idle", is_flag=True, help="End when the queues are empty and nothing is due.")
@click.option("--web-port", type=int, help="The port of the status page; 0 chooses a free one.  [default: 8080]")
@options.logs
def serve(*, until_idle: bool, **values: Any) -> None:
    """Run the service: read each send several times.

    Each send is read at the ages in ages_days, before Braze deletes its analytics. Sends come from the queues of
    triggers, and from harvester enqueue. On SIGTERM, requests in flight have 5 seconds to finish, and the service ends
    within 25 seconds.

    \b
    Examples:
      harvester serve --config harvester.toml
      harvester serve --config harvester.toml --web-port 8081
      harvester serve --config harvester.toml --until-idle   # for cron or scheduled containers
      harvester serve --config harvester.toml --state postgresql://harvester@db/harvester   # several replicas share it
    """
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger
    from harvester.service.service import Service
    from harvester.settings import use_network
    from harvester.sources.brokers import create_broker

    startup.set_up_logs(values, service=True)
    source = startup.get_settings_source(values)
    settings = source.load()
    use_network(settings)
    if settings.out == "-":
        raise UsageError("serve writes to a folder or a bucket; name one with -o")
    startup.check_environment(settings)
    settings.load_keys()  # before anything is created
    for name, each in settings.triggers.items():
        try:
            create_broker(each.kind, **each.options())
        except UsageError as error:
            raise UsageError(f"triggers.{name}: {error}") from None

    async def served() -> ExitCode:
        with open_output(settings) as (sink, compression, location):
            await ledger_access.check_new_ledger(location, settings.list_places())
            async with await Ledger.open(location, clock=SystemClock()) as ledger:
                service = Service(
                    settings, source, ledger=ledger, sink=sink, compression=compression, until_idle=until_idle
                )
                return await service.serve()

    with startup.send_traces():
        code = startup.run_async(served())
    sys.exit(code)
