"""The command doctor: checks that a capture can work."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import ledger_access, options, output, progress, startup
from harvester.cli.layout import wrap
from harvester.errors import ExitCode, HarvesterError, UsageError
from harvester.observability.redaction import scrub
from harvester.text import printable

if TYPE_CHECKING:
    from harvester.commands.workspace_checks import Finding

_RESULTS = {True: "ok  ", False: "FAIL"}


@click.command()
@options.place
@options.workspace
@click.option("--json", is_flag=True, help="Print JSON.")
def doctor(*, json: bool, **arguments: Any) -> None:
    """Check key, endpoint, clock, ledger and parts.

    Says what to correct, and continues after a check that fails. Sends one request per workspace, to check the key's
    permission. The exit code is 2 if a check fails.

    \b
    Example:
      harvester doctor --endpoint https://rest.fra-01.braze.eu -o s3://lake/braze
    """
    findings = _check(arguments)
    code = ExitCode.COMPLETE if all(each.ok for each in findings) else ExitCode.USAGE
    if json:
        output.print_json({"checks": [asdict(each) for each in findings], "exit_code": int(code)})
    else:
        _print_table(findings)
    sys.exit(code)


def _check(arguments: dict[str, Any]) -> "list[Finding]":
    from harvester.clock import SystemClock
    from harvester.commands.doctor import run_checks
    from harvester.commands.workspace_checks import Finding

    try:
        settings = startup.load_settings(arguments)
    except HarvesterError as error:  # without settings, there is nothing else to check
        heading, *problems = scrub(str(error)).split("\n")
        return [Finding("configuration", ok=False, text=each.strip()) for each in problems or [heading]]
    if settings.out == "-":
        raise UsageError("doctor checks a folder or a bucket; name one with -o")

    try:
        location = ledger_access.get_location(settings.out, settings.load_state())
    except UsageError as error:
        return [Finding("configuration", ok=False, text=str(error))]
    with progress.show_work(f"checking {output.plural(len(settings.workspaces), 'workspace')}"):
        return asyncio.run(run_checks(settings, ledger=location, clock=SystemClock()))


def _print_table(findings: "Sequence[Finding]") -> None:
    """Print a row for each finding: its result, its check with the workspace, and its text."""
    width, color = output.get_width(sys.stdout), output.use_color(sys.stdout)
    for line in table_lines(findings, width):
        result = line[:4]
        if color and result in _RESULTS.values():
            click.echo(click.style(result, fg="green" if result == _RESULTS[True] else "red") + line[4:])
        else:
            click.echo(line)


def table_lines(findings: "Sequence[Finding]", width: int | None) -> list[str]:
    """Return the table. Texts are wrapped inside their column if there is a width."""
    several = len({each.workspace for each in findings} - {None}) > 1
    names = [f"{each.workspace}: {each.check}" if several and each.workspace else each.check for each in findings]
    lines = []
    for name, each in zip(names, findings, strict=True):
        head = f"{_RESULTS[each.ok]}  {name:<{max(map(len, names))}}  "
        lines += wrap(printable(f"{head}{each.text}"), width, indent=len(head))
    return lines
