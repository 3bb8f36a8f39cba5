"""The command doctor: checks that a capture can work."""

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, startup
from harvester.cli.run import open_output
from harvester.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harvester.commands.doctor import Finding


@click.command()
@options.place
@options.workspace
def doctor(**arguments: Any) -> None:
    """Check key, endpoint, clock, ledger and parts.

    Says what to correct. Sends one request per workspace, to check the key's permission. The exit code is 2 if a check
    fails.

    \b
    Example:
      harvester doctor --endpoint https://rest.fra-01.braze.eu -o s3://lake/braze
    """
    from harvester.clock import SystemClock
    from harvester.commands.doctor import run_checks

    settings = startup.load_settings(arguments)
    if settings.out == "-":
        raise UsageError("doctor checks a folder or a bucket; name one with -o")

    async def check() -> "list[Finding]":
        with open_output(settings) as (sink, _, path):
            return await run_checks(settings, ledger=path, sink=sink, clock=SystemClock())

    findings = asyncio.run(check())
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject}: {finding.text}")
    sys.exit(ExitCode.COMPLETE if all(finding.ok for finding in findings) else ExitCode.USAGE)
