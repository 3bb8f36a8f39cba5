"""Options that several commands share, and what they lead to."""

import asyncio
import contextlib
import functools
import gc
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harvester.errors import SinkError, SinkRefused, UsageError
from harvester.place import PlaceKind, classify_place, parse_local_path

if TYPE_CHECKING:
    from harvester.ledger import ClockDifference, Ledger
    from harvester.settings import Settings
    from harvester.storage import Sink

DEFAULT_OUT = "./harvest"
OBJECTS_TO_COLLECT = 10_000
"""Answers come as objects by the hundred and are gone at once: looked for after every 700, as Python 3.11 does by
itself, garbage takes 3 % of a harvest, and there is next to none."""

_SETTINGS = ("out", "state", "concurrency", "compression", "raw", "patience_seconds")

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class LocalPath(click.ParamType[Path]):
    """A file or folder of this machine; a place of any other kind is refused before a file of that name is made."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Give the path. Raises ``UsageError``."""
        del ctx
        return value if isinstance(value, Path) else parse_local_path(str(value), _name_of(param))


class ListedPlace(click.ParamType[str]):
    """A file, a folder, an object or ``-``: where sends are listed."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give the name as it is. Raises ``UsageError``."""
        del ctx
        classify_place(str(value), _name_of(param), buckets=True, pipe=True)
        return str(value)


def _name_of(param: click.Parameter | None) -> str:
    """Name an option or argument as a user writes it."""
    if param is None:
        return "the path"
    return param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name


def _out(what: str) -> Callable[[F], F]:
    return click.option("-o", "--out", envvar="HARVESTER_OUT", help=f"{what}  [default: ./harvest]")


_PLACE = "Folder or bucket for the parts (s3://bucket/prefix, gs://, az://)"
state = click.option(
    "--state",
    type=LocalPath(),
    envvar="HARVESTER_STATE",
    help="The ledger's file  [default: inside OUT; for a bucket ./.harvester/NAME.db]",
)
config = click.option(
    "--config",
    type=LocalPath(),
    envvar="HARVESTER_CONFIG",
    help="A TOML file of settings, such as config/harvester.toml; triggers and several workspaces need one.",
)
place = _together(_out(_PLACE), state)
place_or_pipe = _together(_out(f"{_PLACE}, or - to write rows to stdout"), state)
_ledger = _together(_out("Folder or bucket of the parts, to find the ledger"), state, config)
listed = click.option(
    "--workspace",
    "workspaces",
    multiple=True,
    help="A workspace of the listed sends; repeat for more  [default: those of the service and of --config]",
)
logs = _together(
    click.option(
        "--log-json/--log-text",
        default=None,
        help="The format of logs  [default: JSON for serve off a terminal]",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="The lowest level to log  [default: info; on a terminal warning]",
    ),
)
reach = _together(
    click.option("--endpoint", help="Your REST endpoint  [env: BRAZE_ENDPOINT]; the key is in BRAZE_API_KEY."),
    click.option("--api-key-file", type=LocalPath(), help="A file that contains the API key."),
    click.option(
        "--allow-unknown-host", is_flag=True, default=None, help="Accept an endpoint that is not a known Braze host."
    ),
)
workspace = _together(
    reach,
    config,
    click.option("--reserve", type=float, help="The share of the hourly quota that stays free  [default: 0.2]"),
    click.option("--max-rate", type=float, help="The most requests per second  [default: 1000]"),
)
pace = _together(
    click.option("--concurrency", type=int, help="The most requests in flight  [default: 64]"),
    click.option(
        "--compression",
        type=click.Choice(["zstd", "gzip"]),
        help="The compression of parts; Spark 3.5 and BigQuery cannot read zstd  [default: zstd]",
    ),
    click.option(
        "--raw", is_flag=True, default=None, help="Also store each response as it was received, in raw_answers/."
    ),
)

patience = click.option(
    "--patience-seconds",
    type=float,
    help="End when nothing has succeeded for this time; the same command continues  [default: 240]",
)


def settings_of(given: dict[str, Any]) -> "Settings":
    """Load settings from the command line, the environment and the file."""
    with importing():
        from harvester.settings import load

    return load(
        given.get("config"),
        {name: given.get(name) for name in _SETTINGS},
        {name: given.get(name) for name in ("endpoint", "api_key_file", "allow_unknown_host", "reserve", "max_rate")},
    )


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import without looking for garbage: what an import makes lives to the end, and is not looked through later.

    That is a tenth of the start, and of a long harvest.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def set_up_logs(given: dict[str, Any], *, lasting: bool = False) -> None:
    """Write logs to stderr: only warnings on a terminal, and JSON for a service elsewhere."""
    from harvester.observability.logs import set_up_logs as set_up

    json = given.get("log_json")
    set_up(
        json=lasting and not sys.stderr.isatty() if json is None else json,
        level=given.get("log_level") or ("info" if lasting or not sys.stderr.isatty() else "warning"),
    )


def check_environment() -> None:
    """Warn of a proxy that requests to Braze ignore. Raises ``UsageError`` for unreadable certificates."""
    import structlog

    from harvester.settings.environment import PROXY_HINT, check_certificates, list_proxy_variables

    check_certificates()
    variables = list_proxy_variables()
    if variables:
        structlog.get_logger().warning("proxy_ignored", variables=" ".join(variables), hint=PROXY_HINT)


def traced() -> contextlib.AbstractContextManager[None]:
    """Send traces to the collector in OpenTelemetry's variable, if it is set."""
    from harvester.observability.traces import send_traces_to
    from harvester.settings import get_trace_endpoint

    return send_traces_to(get_trace_endpoint())


def ledger_path(out: str | None, state: Path | None) -> Path:
    """Return the path of the ledger: ``state``, or inside the output folder, or for a bucket in the current folder."""
    out = out or DEFAULT_OUT
    kind = classify_place(out, "--out", buckets=True, pipe=True)
    if state is not None:
        return state
    if kind is PlaceKind.PIPE:
        raise UsageError("-o - has no ledger: name one with --state, or a place with -o")
    if kind is PlaceKind.BUCKET:
        return Path(".harvester") / (re.sub(r"[^A-Za-z0-9.]+", "-", out).strip("-") + ".db")
    return Path(out) / ".harvester" / "ledger.db"


def ledger(work: Callable[..., None]) -> Callable[..., None]:
    """Add the options that lead to a ledger; the command gets its ``path``, and the ``workspaces`` of a list."""
    return _leading_to_a_ledger(work, makes=lambda _: False)


def ledger_to_make(makes: Callable[[dict[str, Any]], bool]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Like ``ledger``, for a command that creates a missing ledger if ``makes`` returns true for its arguments."""
    return functools.partial(_leading_to_a_ledger, makes=makes)


def _leading_to_a_ledger(work: Callable[..., None], makes: Callable[[dict[str, Any]], bool]) -> Callable[..., None]:

    @functools.wraps(work)
    def found(*, config: Path | None, out: str | None, state: Path | None, **given: Any) -> None:
        configured: Iterable[str] = ()
        if config is not None:
            settings = settings_of({"config": config, "out": out, "state": state})
            out, state, configured = settings.out, settings.state, settings.workspaces
        path = ledger_path(out, state)
        if makes(given) and (out is not None or state is None):
            _check_unclaimed(out or DEFAULT_OUT, path)
        if "workspaces" in given:
            given["workspaces"] = _workspaces(path, given["workspaces"], configured)
        work(path=path, **given)

    return _ledger(found)


def sink_of(out: str) -> "Sink":
    """Choose the sink that ``out`` names; nothing is opened yet."""
    from harvester.storage import FolderSink, StdoutSink

    kind = classify_place(out, "--out", buckets=True, pipe=True)
    if kind is PlaceKind.PIPE:
        return StdoutSink(sys.stdout.buffer)
    if kind is PlaceKind.FILE:
        return FolderSink(Path(out))
    from harvester.storage.bucket import BucketSink
    from harvester.storage.object_store import ObjectStore

    return BucketSink(ObjectStore(out))


async def check_new_ledger(sink: "Sink", path: Path) -> None:
    """Raise ``SinkRefused`` if the ledger is missing but the place was captured with one: a new ledger has no plan."""
    if path.exists():  # noqa: ASYNC240 - nothing runs beside it
        return
    owner = await sink.find_owner()
    if owner is not None:
        whose = (
            f"with another ledger (its id is {owner})"
            if owner
            else "with a ledger that is unknown, since the marker is missing"
        )
        raise SinkRefused(
            f"there is no ledger at {path}, but {sink.place} was captured {whose}: restore that ledger, or name it "
            "with --state; if it is lost, use harvester ledger rebuild; or name a new place with -o"
        )


def _check_unclaimed(out: str, path: Path) -> None:
    try:
        asyncio.run(check_new_ledger(sink_of(out), path))
    except SinkRefused:
        raise
    except SinkError as error:
        click.echo(f"harvester: cannot check whether {out} belongs to another ledger: {error}", err=True)


def known_time(path: Path) -> "tuple[float, ClockDifference | None]":
    """Return Braze's time as far as a ledger knows it, and the last measured difference, which may be outdated."""
    from harvester.clock import SystemClock

    async def at(ledger: "Ledger") -> "tuple[float, ClockDifference | None]":
        return ledger.clock.wall(), ledger.clock_difference or ledger.outdated_difference

    return with_ledger(path, at) if path.exists() else (SystemClock().wall(), None)


def check_there(path: Path) -> None:
    """Raise ``UsageError`` unless there is a ledger."""
    if not path.exists():
        raise UsageError(f"there is no ledger at {path}; name the output with -o, or the ledger with --state")


def with_ledger(path: Path, work: "Callable[[Ledger], Coroutine[Any, Any, T]]") -> T:
    """Open a ledger that exists already, and return what ``work`` does with it."""
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger

    check_there(path)

    async def opened() -> T:
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            return await work(ledger)

    return asyncio.run(opened())


def _workspaces(path: Path, named: tuple[str, ...], configured: Iterable[str]) -> list[str]:
    """Choose the workspaces that a list's pairs may be of: those named, or those served here and configured.

    Raises ``UsageError`` for a name that the service does not serve: its pairs would expire unread.
    """
    served = sorted(with_ledger(path, lambda ledger: ledger.reports.list_served_workspaces())) if path.exists() else []
    for name in named if served else ():
        if name not in {*served, *configured}:
            known = ", ".join(f'"{each}"' for each in served)
            raise UsageError(f'this ledger has no workspace "{name}"; name one of {known}')
    return list(named) or sorted({*served, *configured}) or ["default"]


def awaited(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command that makes many calls, on the quicker of the event loops."""
    import uvloop

    gc.set_threshold(OBJECTS_TO_COLLECT)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
