"""The command line: arguments, progress and exit codes.

A command imports what it needs when it runs, so that ``--help`` is quick. Nothing below this floor reads
arguments, prints, or ends the process.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import traceback
from types import TracebackType
from typing import Any

import click

from harvester import __version__
from harvester.cli import audit, capture, ledger, ledger_files, serve, stand_in, view
from harvester.errors import ExitCode, HarvesterError, SinkClosed
from harvester.observability.redaction import scrub
from harvester.text import printable

EXIT_CODES = """\b
Exit codes: 0 complete, 1 bug, 2 usage or configuration, 3 partial (some rejected, expired,
deferred or unreadable), 4 workspace halted, 5 storage, 130 interrupted."""


class _Commands(click.Group):
    """Turns what the harvester expects to go wrong into one sentence and its exit code."""

    def main(self, *args: Any, **given: Any) -> Any:
        _open_closed_streams()
        sys.excepthook = _show_bug
        try:
            return super().main(*args, **given)
        except OSError as error:
            # A place that no door guards: standard output, the folder of temporary files.
            where = f" ({error.filename})" if error.filename else ""
            click.echo(f"harvester: {error.strerror or error}{where}; mend it and run the same command again", err=True)
            _drop_output()
            sys.exit(ExitCode.STORAGE)

    def invoke(self, ctx: click.Context) -> Any:
        # The first process of a container has no default for SIGTERM: the kernel would drop it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the key
        _allow_open_files()
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, SinkClosed):
            _drop_output()  # whoever reads it has seen enough
            ctx.exit(ExitCode.COMPLETE)
        except HarvesterError as error:
            lines = scrub(str(error)).split("\n")  # one for each problem of the settings
            click.echo("harvester: " + "\n".join(map(printable, lines)), err=True)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, asyncio.CancelledError):  # the latter: a second signal, or the grace is spent
            click.echo("harvester: interrupted; run the same command again to go on", err=True)
            ctx.exit(ExitCode.INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order in which one meets them."""
        del ctx
        return list(self.commands)


def _allow_open_files() -> None:
    """Raise the soft limit for open files to the hard one: connections of strangers must not use up our own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a kernel may know a lower one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as Python does, without the secrets that the text of an error may quote."""
    sys.stderr.write(scrub("".join(traceback.format_exception(kind, error, trace))))


def _drop_output() -> None:
    """Let what is left to print lead nowhere: at its end the interpreter would try to flush it, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Let standard streams that were closed lead nowhere, or a file or a socket would be given their numbers."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, mode))


@click.group(cls=_Commands, epilog=EXIT_CODES)
@click.version_option(__version__)
def main() -> None:
    """Capture Braze send analytics before they expire.

    \b
    Examples:
      harvester demo
      BRAZE_API_KEY=... harvester run sends.csv --endpoint https://rest.fra-01.braze.eu
    """


for command in (
    stand_in.demo, capture.run, serve.serve, capture.plan, ledger.enqueue, audit.audit, ledger.status, ledger.requeue,
    ledger.remove,
    view.latest, ledger.parts, ledger_files.ledger, capture.doctor, stand_in.simulate,
):  # fmt: skip
    main.add_command(command)
