"""Options that several commands share."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from harvester.errors import UsageError
from harvester.observability.redaction import register_url_secrets
from harvester.place import (
    DATABASE_FORM,
    LedgerLocation,
    classify_place,
    parse_ledger_location,
    parse_local_path,
)

F = TypeVar("F", bound=Callable[..., Any])


class LocalPath(click.ParamType[Path]):
    """A file or folder on this machine. Other kinds of place are refused before a file of that name is created."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path. Raises ``UsageError``."""
        del ctx
        return value if isinstance(value, Path) else parse_local_path(str(value), _get_name(param))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete names of files."""
        return complete_path(ctx, param, incomplete)


class LedgerPlace(click.ParamType[LedgerLocation]):
    """A ledger: a file on this machine, or a database. The password of a database is masked from then on.

    With ``in_file``, ``@FILE`` stands for the URL that the file contains.
    """

    name = "path or URL"

    def __init__(self, *, in_file: bool = False) -> None:
        """Take a path or a URL."""
        self._in_file = in_file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LedgerLocation:
        """Return the location. Raises ``UsageError``."""
        del ctx
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return] # it has been converted
        if self._in_file and value.startswith("@"):
            from harvester.settings.state import load_state

            return load_state(Path(value[1:]), f"@FILE in {_get_name(param)}")
        register_url_secrets(value)
        return parse_ledger_location(value, _get_name(param))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete names of files."""
        return complete_path(ctx, param, incomplete)


class ListedPlace(click.ParamType[str]):
    """A list of sends: a file, a folder, an object or ``-``, which must not be closed."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the unchanged name. Raises ``UsageError``."""
        del ctx
        classify_place(str(value), _get_name(param), buckets=True, pipe=True)
        if value == "-" and isinstance(param, click.Argument) and sys.__stdin__ is None:
            raise UsageError(f"{_get_name(param)} is -, but standard input is closed; open it, or name a file")
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete names of files."""
        return complete_path(ctx, param, incomplete)


def complete_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete names of files and folders."""
    del ctx, param
    return [CompletionItem(incomplete, type="file")]


def _get_name(param: click.Parameter | None) -> str:
    """Return the name of an option or argument as the user writes it."""
    if param is None:
        return "the path"
    return param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name


def _combine(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _out(what: str) -> Callable[[F], F]:
    return click.option(
        "-o", "--out", envvar="HARVESTER_OUT", shell_complete=complete_path, help=f"{what}.  [default: ./harvest]"
    )


_PLACE = "The folder or bucket for the parts (s3://bucket/prefix, gs://, az://)"

_state = _combine(
    click.option(
        "--state",
        type=LedgerPlace(),
        envvar="HARVESTER_STATE",
        help=(
            f"The ledger: a file, or {DATABASE_FORM}.  [default: a file in the folder of the parts; for a bucket "
            "./.harvester/NAME.db]"
        ),
    ),
    click.option(
        "--state-file",
        type=LocalPath(),
        envvar="HARVESTER_STATE_FILE",
        help="A file that contains the URL of the ledger's database.",
    ),
)


def state(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a ledger. An option on the command line replaces the other one's variable."""

    @functools.wraps(command)
    def with_state(*args: Any, **arguments: Any) -> None:
        both = [name for name in ("state", "state_file") if arguments[name] is not None]
        if len(both) > 1:
            source = click.get_current_context().get_parameter_source
            both = [name for name in both if source(name) is not ParameterSource.ENVIRONMENT] or both
            if len(both) > 1:
                raise UsageError("set either --state or --state-file (HARVESTER_STATE or HARVESTER_STATE_FILE)")
        command(*args, **arguments | {name: None for name in ("state", "state_file") if name not in both})

    return _state(with_state)


config = click.option(
    "--config",
    type=LocalPath(),
    envvar="HARVESTER_CONFIG",
    help="A TOML file of settings, such as config/harvester.toml.",
)
place = _combine(_out(_PLACE), state)
place_or_pipe = _combine(_out(f"{_PLACE}, or - to write rows to stdout"), state)
ledger = _combine(_out("The folder or bucket whose ledger to use"), state, config)

list_workspaces = click.option(
    "--workspace",
    "workspaces",
    multiple=True,
    help="A workspace that the list may name; repeat for more.  [default: those of the service and of --config]",
)
_list_content = _combine(
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="FIELD=NAME",
        help="The column of a field in lists, such as send_id=MY_NAME; repeat for more.",
    ),
    click.option(
        "--no-header", metavar="COLUMNS", help="The columns of lists without a header, such as campaign_id,send_id."
    ),
    click.option(
        "--time-format", metavar="FORMAT", help="The format of times that are not in ISO 8601, such as %d/%m/%Y."
    ),
    click.option("--sheet", metavar="NAME", help="The sheet of an Excel workbook.  [default: the first one]"),
)


def list_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the content of lists, which the command gets as ``list_options``."""

    @functools.wraps(command)
    def with_options(
        *args: Any,
        columns: Sequence[str],
        no_header: str | None,
        time_format: str | None,
        sheet: str | None,
        **arguments: Any,
    ) -> None:
        from harvester.sources import ListOptions

        command(*args, list_options=ListOptions.parse(columns, no_header, time_format, sheet), **arguments)

    return _list_content(with_options)


logs = _combine(
    click.option(
        "--log-json/--log-text",
        default=None,
        help="The format of the log.  [default: text; JSON for serve if stderr is not a terminal]",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="The lowest level to log.  [default: info; warning for run on a terminal]",
    ),
)
verbose = click.option("-v", "--verbose", is_flag=True, help="List requests and responses by cause in the summary.")
endpoint = _combine(
    click.option(
        "--endpoint",
        help="The REST endpoint of your Braze instance. Set the key in BRAZE_API_KEY.  [env: BRAZE_ENDPOINT]",
    ),
    click.option("--api-key-file", type=LocalPath(), help="A file that contains the API key."),
    click.option(
        "--allow-unknown-host", is_flag=True, default=None, help="Accept an endpoint that is not a known Braze host."
    ),
)
workspace = _combine(
    endpoint,
    config,
    click.option(
        "--reserve", type=float, help="The share of the hourly quota that stays free for live sending.  [default: 0.2]"
    ),
    click.option("--max-rate", type=float, help="The most requests per second.  [default: 1000]"),
)
capture = _combine(
    click.option("--concurrency", type=int, help="The most requests in flight for each workspace.  [default: 64]"),
    click.option(
        "--compression",
        type=click.Choice(["zstd", "gzip"]),
        help="The compression of parts; Spark 3.5 and BigQuery cannot read zstd.  [default: zstd]",
    ),
    click.option(
        "--raw", is_flag=True, default=None, help="Also store each response as it was received, in raw_answers/."
    ),
)
