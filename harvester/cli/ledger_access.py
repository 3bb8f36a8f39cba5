"""How commands find and open a ledger, and the place that belongs to it."""

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harvester.cli import options
from harvester.cli.startup import load_settings
from harvester.errors import SinkError, SinkRefused, UsageError
from harvester.place import PlaceKind, classify_place

if TYPE_CHECKING:
    from harvester.ledger import ClockDifference, Ledger

DEFAULT_OUT = "./harvest"

T = TypeVar("T")


def get_ledger_path(out: str | None, state: Path | None) -> Path:
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


def ledger_command(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that find a ledger; the command gets its ``path``, and the ``workspaces`` of a list."""
    return _find_ledger(command, creates=lambda _: False)


def reading_command(command: Callable[..., None]) -> Callable[..., None]:
    """Like ``ledger_command``; the command also gets the ``configured`` workspaces, or None without a configuration."""
    return _find_ledger(command, creates=lambda _: False, passes_configured=True)


def creating_command(creates: Callable[[dict[str, Any]], bool]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Like ``ledger_command``, but create a missing ledger if ``creates`` returns True for the arguments."""
    return functools.partial(_find_ledger, creates=creates)


def _find_ledger(
    command: Callable[..., None], creates: Callable[[dict[str, Any]], bool], *, passes_configured: bool = False
) -> Callable[..., None]:

    @functools.wraps(command)
    def with_path(*, config: Path | None, out: str | None, state: Path | None, **arguments: Any) -> None:
        configured: Iterable[str] = ()
        places: Mapping[str, Sequence[str]] = {out or DEFAULT_OUT: ()}
        if config is not None:
            settings = load_settings({"config": config, "out": out, "state": state})
            out, state, configured = settings.out, settings.state, settings.workspaces
            places = settings.list_places()
        path = get_ledger_path(out, state)
        if creates(arguments) and (out is not None or state is None):
            _check_unclaimed(path, places)
        if "workspaces" in arguments:
            arguments["workspaces"] = _choose_workspaces(path, arguments["workspaces"], configured)
        if passes_configured:
            arguments["configured"] = None if config is None else list(configured)
        command(path=path, **arguments)

    return options.ledger(with_path)


def _choose_workspaces(path: Path, named: tuple[str, ...], configured: Iterable[str]) -> list[str]:
    """Return the workspaces that the pairs of a list may have: the named ones, or those served and configured.

    Raises ``UsageError`` for a workspace that the service does not serve: its pairs would expire unread.
    """
    served = sorted(with_ledger(path, lambda ledger: ledger.reports.list_served_workspaces())) if path.exists() else []
    for name in named if served else ():
        if name not in {*served, *configured}:
            known = ", ".join(f'"{each}"' for each in served)
            raise UsageError(f'this ledger has no workspace "{name}"; name one of {known}')
    return list(named) or sorted({*served, *configured}) or ["default"]


def with_ledger(path: Path, work: "Callable[[Ledger], Coroutine[Any, Any, T]]") -> T:
    """Open an existing ledger, and return the result of ``work``. Raises ``UsageError`` if it does not exist."""
    from harvester.clock import SystemClock
    from harvester.ledger import Ledger

    check_exists(path)

    async def open_and_work() -> T:
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            return await work(ledger)

    return asyncio.run(open_and_work())


def check_exists(path: Path) -> None:
    """Raise ``UsageError`` if the ledger does not exist."""
    if not path.exists():
        raise UsageError(f"there is no ledger at {path}; name the output with -o, or the ledger with --state")


def get_time(path: Path) -> "tuple[float, ClockDifference | None]":
    """Return Braze's time by the ledger, if it exists, and the last measured difference, which may be outdated."""
    from harvester.clock import SystemClock

    async def read(ledger: "Ledger") -> "tuple[float, ClockDifference | None]":
        return ledger.clock.wall(), ledger.clock_difference or ledger.outdated_difference

    return with_ledger(path, read) if path.exists() else (SystemClock().wall(), None)


async def check_new_ledger(path: Path, places: Mapping[str, Sequence[str]]) -> None:
    """Raise ``SinkRefused`` if the ledger is missing but a place has one: a new ledger has no plan.

    ``places`` has the workspaces of each place. If there are several, those that are unavailable are skipped, because
    the engine checks them again.
    """
    from harvester.health import name_workspaces

    if path.exists():  # noqa: ASYNC240 - nothing runs beside it
        return
    failures = await asyncio.gather(*(_check_unowned(each, path) for each in places), return_exceptions=True)
    for failure, names in zip(failures, places.values(), strict=True):
        if isinstance(failure, SinkRefused) and len(places) > 1:
            raise SinkRefused(f"{failure} (the place of {name_workspaces(names)})")
        if isinstance(failure, BaseException) and not (isinstance(failure, SinkError) and len(places) > 1):
            raise failure


async def _check_unowned(place: str, path: Path) -> None:
    from harvester.storage import open_sink

    sink = open_sink(place)
    owner = await sink.find_owner()
    if owner is not None:
        whose = f"another ledger (its id is {owner})" if owner else "an unknown ledger, since its marker is missing"
        raise SinkRefused(
            f"there is no ledger at {path}, but {sink.place} was captured with {whose}: restore that ledger, or name "
            f"it with --state. If it is lost, run harvester ledger rebuild {sink.place}, or name a new place with -o"
        )


def _check_unclaimed(path: Path, places: Mapping[str, Sequence[str]]) -> None:
    try:
        asyncio.run(check_new_ledger(path, places))
    except SinkRefused:
        raise
    except SinkError as error:
        names = " and ".join(places)
        click.echo(f"harvester: cannot check whether {names} belongs to another ledger: {error}", err=True)
