"""How commands find and open a ledger, and the place that belongs to it."""

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harvester.cli import options
from harvester.cli.startup import load_settings, set_up_logs
from harvester.errors import SinkError, SinkRefused, UsageError
from harvester.place import LedgerLocation, PlaceKind, classify_place

if TYPE_CHECKING:
    from harvester.ledger import ClockDifference, Ledger
    from harvester.settings import Workspace

DEFAULT_OUT = "./harvest"

T = TypeVar("T")


def get_location(out: str | None, state: LedgerLocation | None) -> LedgerLocation:
    """Return where the ledger is: ``state``, or in the output folder, or for a bucket in the current folder."""
    out = out or DEFAULT_OUT
    kind = classify_place(out, "--out", buckets=True, pipe=True)
    if state is not None:
        return state
    if kind is PlaceKind.PIPE:
        raise UsageError("-o - has no ledger: name one with --state, or a place with -o")
    if kind is PlaceKind.BUCKET:
        return Path(".harvester") / (re.sub(r"[^A-Za-z0-9.]+", "-", out).strip("-") + ".db")
    return Path(out) / ".harvester" / "ledger.db"


def get_rejects_folder(out: str | None, location: LedgerLocation) -> Path:
    """Return the folder of the rejects: that of the ledger's file; for a database, where the file would be without it.

    ``out`` is the place of the parts.
    """
    if isinstance(location, Path):
        return location.parent
    folder = out or DEFAULT_OUT
    in_folder = classify_place(folder, "--out", buckets=True, pipe=True) is PlaceKind.FILE
    return Path(folder if in_folder else "") / ".harvester"


def exists(location: LedgerLocation) -> bool:
    """Return whether there is a ledger. Creates nothing. Raises ``LedgerError``."""
    if isinstance(location, Path):
        return location.exists()
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger

    return asyncio.run(Ledger.exists(location, clock=SystemClock()))


def ledger_command(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that find a ledger; the command gets its ``location``, and the ``workspaces`` of a list."""
    return _find_ledger(command, creates=lambda _: False)


def reading_command(command: Callable[..., None]) -> Callable[..., None]:
    """Like ``ledger_command``; the command also gets the ``configured`` workspaces by name, or None without a file."""
    return _find_ledger(command, creates=lambda _: False, passes_configured=True)


def list_command(
    creates: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Like ``ledger_command``, for a command that reads a list; it also gets the ``rejects_folder``.

    A missing ledger is created if ``creates`` returns True for the arguments.
    """
    return functools.partial(_find_ledger, creates=creates, passes_folder=True)


def _find_ledger(
    command: Callable[..., None],
    creates: Callable[[dict[str, Any]], bool],
    *,
    passes_configured: bool = False,
    passes_folder: bool = False,
) -> Callable[..., None]:

    @functools.wraps(command)
    def with_location(
        *, config: Path | None, out: str | None, state: LedgerLocation | None, state_file: Path | None, **arguments: Any
    ) -> None:
        set_up_logs({}, level="warning")  # of a server that is unavailable; the default would be standard output
        configured: Mapping[str, Workspace] = {}
        places: Mapping[str, Sequence[str]] = {out or DEFAULT_OUT: ()}
        if config is not None:
            settings = load_settings({"config": config, "out": out, "state": state, "state_file": state_file})
            out, state, configured = settings.out, settings.load_state(), settings.workspaces
            places = settings.list_places()
        elif state_file is not None:
            state = load_state_file(state_file)
        location = get_location(out, state)
        if creates(arguments) and (out is not None or state is None):
            _check_new_ledger_or_warn(location, places)
        if "workspaces" in arguments:
            arguments["workspaces"] = _choose_workspaces(location, arguments["workspaces"], configured)
        if passes_configured:
            arguments["configured"] = None if config is None else configured
        if passes_folder:
            arguments["rejects_folder"] = get_rejects_folder(out, location)
        command(location=location, **arguments)

    return options.ledger(with_location)


def load_state_file(file: Path) -> LedgerLocation:
    """Return the URL in a file. Raises ``UsageError``."""
    from harvester.settings.state import load_state

    return load_state(file)


def _choose_workspaces(location: LedgerLocation, named: tuple[str, ...], configured: Iterable[str]) -> list[str]:
    """Return the workspaces that the pairs of a list may have: the named ones, or those served and configured.

    Raises ``UsageError`` for a workspace that the service does not serve: its pairs would expire unread.
    """
    served = []
    if exists(location):
        served = sorted(_with_existing(location, lambda ledger: ledger.reports.list_planned_workspaces()))
    for name in named if served else ():
        if name not in {*served, *configured}:
            known = ", ".join(f'"{each}"' for each in served)
            raise UsageError(f'this ledger has no workspace "{name}"; name one of {known}')
    return list(named) or sorted({*served, *configured}) or ["default"]


def with_ledger(location: LedgerLocation, work: "Callable[[Ledger], Coroutine[Any, Any, T]]") -> T:
    """Open an existing ledger, and return the result of ``work``. Raises ``UsageError`` if it does not exist."""
    check_exists(location)
    return _with_existing(location, work)


def _with_existing(location: LedgerLocation, work: "Callable[[Ledger], Coroutine[Any, Any, T]]") -> T:
    """Do the same without asking again whether the ledger exists, for which a database needs other connections."""
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger

    async def open_and_work() -> T:
        async with await Ledger.open(location, clock=SystemClock()) as ledger:
            return await work(ledger)

    return asyncio.run(open_and_work())


def check_exists(location: LedgerLocation) -> None:
    """Raise ``UsageError`` if the ledger does not exist."""
    if not exists(location):
        raise UsageError(
            f"there is no ledger at {location}; harvester run, serve and enqueue create one. To use another, name the "
            "configuration with --config, the output with -o, or the ledger with --state"
        )


def get_time(location: LedgerLocation) -> "tuple[float, ClockDifference | None]":
    """Return Braze's time by the ledger, if it exists, and the last measured difference, which may be outdated."""
    from harvester.clock import SystemClock

    async def read(ledger: "Ledger") -> "tuple[float, ClockDifference | None]":
        return ledger.clock.wall(), ledger.clock_difference or ledger.outdated_difference

    return _with_existing(location, read) if exists(location) else (SystemClock().wall(), None)


async def check_new_ledger(location: LedgerLocation, places: Mapping[str, Sequence[str]]) -> None:
    """Raise ``SinkRefused`` if the ledger is missing but a place has one: a new ledger has no plan.

    ``places`` has the workspaces of each place. If there are several, those that are unavailable are skipped, because
    the engine checks them again.
    """
    from harvester.clock import SystemClock
    from harvester.condition import name_workspaces
    from harvester.ledger import Ledger

    clock = SystemClock()
    if await Ledger.exists(location, clock=clock):
        return
    failures = await asyncio.gather(*(_check_unmarked(each, location) for each in places), return_exceptions=True)
    if any(isinstance(each, SinkRefused) for each in failures) and await Ledger.exists(location, clock=clock):
        return  # another process that also just started has created it, and then marked the place
    for failure, names in zip(failures, places.values(), strict=True):
        if isinstance(failure, SinkRefused) and len(places) > 1:
            raise SinkRefused(f"{failure} (the place of {name_workspaces(names)})")
        if isinstance(failure, BaseException) and not (isinstance(failure, SinkError) and len(places) > 1):
            raise failure


async def _check_unmarked(place: str, location: LedgerLocation) -> None:
    from harvester.storage import open_sink

    sink = open_sink(place)
    found = await sink.find_ledger_id()
    if found is not None:
        whose = f"another ledger (its id is {found})" if found else "an unknown ledger, since its marker is missing"
        raise SinkRefused(
            f"there is no ledger at {location}, but {sink.place} was captured with {whose}: restore that ledger, or "
            f"name it with --state. If it is lost, run harvester ledger rebuild {sink.place}, or name a new place "
            "with -o"
        )


def _check_new_ledger_or_warn(location: LedgerLocation, places: Mapping[str, Sequence[str]]) -> None:
    """Check it as ``check_new_ledger`` does, but only warn if the places are unavailable."""
    try:
        asyncio.run(check_new_ledger(location, places))
    except SinkRefused:
        raise
    except SinkError as error:
        names = " and ".join(places)
        click.echo(f"harvester: cannot check whether {names} belongs to another ledger: {error}", err=True)
