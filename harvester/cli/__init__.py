"""The command line: arguments, progress and exit codes.

A command imports its dependencies when it runs, so that ``--help`` is fast. No lower package reads arguments, prints or
ends the process.
"""

import asyncio
import contextlib
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import click

from harvester import __version__
from harvester.cli import audit, demo, doctor, latest, ledger, pairs, plan, run, schema, serve, show, simulate, status
from harvester.cli.output import print_lines
from harvester.cli.progress import defer_rich
from harvester.cli.streams import drop_output, open_streams
from harvester.errors import ExitCode, HarvesterError, SinkClosed
from harvester.observability.redaction import scrub
from harvester.text import printable

EXIT_CODES = """\b
Exit codes: 0 complete, 1 bug, 2 usage or configuration, 3 partial (some rejected, expired,
pending or unreadable), 4 workspace halted, 5 storage, 130 interrupted."""


GROUPS: dict[str, tuple[click.Command, ...]] = {
    "Capture": (run.run, serve.serve, plan.plan, pairs.enqueue),
    "Inspect": (status.status, show.show, audit.audit, latest.latest, status.parts, schema.schema),
    "Maintain": (doctor.doctor, pairs.requeue, pairs.remove, ledger.ledger),
    "Try": (demo.demo, simulate.simulate),
}
"""The commands, by what they are for."""


class _Commands(click.Group):
    """Reports expected errors as one sentence, and ends with their exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        open_streams()
        defer_rich()
        sys.excepthook = _print_bug
        try:
            return super().main(*args, **extra)
        except OSError as error:
            # Standard output, or the folder for temporary files.
            where = f" ({error.filename})" if error.filename else ""
            click.echo(
                f"harvester: {error.strerror or error}{where}; correct this, then run the same command again", err=True
            )
            drop_output()
            sys.exit(ExitCode.STORAGE)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are not UTF-8, which no ledger contains. Raises ``click.UsageError``."""
        for each in args:
            if (shown := _escape_invalid(each)) != each:
                raise click.UsageError(f"the argument '{printable(shown)}' is not valid UTF-8; correct it", ctx)
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments. An interruption ends the process here too."""
        with _reporting_interruption():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _reporting_interruption():
            # In a container, the kernel ignores SIGTERM for the first process unless it has a handler.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would contain the key
            _allow_open_files()
            try:
                return super().invoke(ctx)
            except (BrokenPipeError, SinkClosed):
                drop_output()  # the reader closed the pipe
                ctx.exit(ExitCode.COMPLETE)
            except HarvesterError as error:
                lines = scrub(str(error)).split("\n")  # one sentence for each problem of the settings
                print_lines(("harvester: " + "\n".join(map(printable, lines))).split("\n"), err=True)
                ctx.exit(error.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the help."""
        del ctx
        return [command.name for group in GROUPS.values() for command in group if command.name]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in groups. All descriptions begin in the same column."""
        del ctx
        longest = max(map(len, self.commands))
        for heading, group in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(f"{each.name:<{longest}}", each.get_short_help_str(formatter.width)) for each in group]
                )


@contextlib.contextmanager
def _reporting_interruption() -> Iterator[None]:
    """End with ``INTERRUPTED`` at a signal that nothing handled: a second one, or one before or after the work.

    Click would end with 1, which means a bug.
    """
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("harvester: interrupted; run the same command again to continue", err=True)
        raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None


def _escape_invalid(text: str) -> str:
    r"""Replace the bytes of an argument that are not UTF-8 by escapes, such as ``\xff``."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _allow_open_files() -> None:
    """Raise the soft limit of open files to the hard limit: incoming connections must not use them up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a kernel may have a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as Python does, with secrets masked."""
    sys.stderr.write(scrub("".join(traceback.format_exception(kind, error, trace))))


def _follow_no_color(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Print no color if ``NO_COLOR`` has a value (https://no-color.org)."""
    del option
    if value:
        context.color = False


def _follow_terminal(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Print no color on a terminal without control codes."""
    del option
    if value == "dumb":
        context.color = False


@click.group(cls=_Commands, epilog=EXIT_CODES)
@click.version_option(__version__)
@click.option(
    "--no-color", envvar="NO_COLOR", hidden=True, is_eager=True, expose_value=False, callback=_follow_no_color
)
@click.option("--terminal", envvar="TERM", hidden=True, is_eager=True, expose_value=False, callback=_follow_terminal)
def main() -> None:
    """Capture Braze send analytics before they expire.

    \b
    Examples:
      harvester demo
      BRAZE_API_KEY=... harvester run sends.csv --endpoint https://rest.fra-01.braze.eu
    """


for commands in GROUPS.values():
    for command in commands:
        main.add_command(command)
