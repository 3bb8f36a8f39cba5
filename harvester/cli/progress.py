"""Progress on a terminal: lines that are drawn again four times a second, below the logs."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harvester.cli.output import plural
from harvester.health import rate_hold
from harvester.observability.logs import OUTPUT_LOCK

if TYPE_CHECKING:
    from harvester.commands.capture import Run, WorkspaceProgress
    from harvester.sources import Input

REFRESH_SECONDS = 0.25
MAX_LINES = 5
"""How many workspaces are listed."""


def show_reading(pairs: "Input") -> contextlib.AbstractAsyncContextManager[None]:
    """Show how many lines of a source are read."""
    return _show(lambda: [f"read so far: {pairs.lines} lines and events"])


def show_capture(job: "Run") -> contextlib.AbstractAsyncContextManager[None]:
    """Show how far a run is, and the workspaces that matter, while it lasts."""
    return _show(lambda: _run_lines(job))


@contextlib.asynccontextmanager
async def _show(lines: Callable[[], list[str]]) -> AsyncIterator[None]:
    """Show lines while the body runs, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    view = asyncio.create_task(_draw(lines), name="progress")
    try:
        yield
    finally:
        view.cancel()
        await asyncio.wait([view])


async def _draw(lines: Callable[[], list[str]]) -> None:
    """Draw the lines again and again, until this is cancelled.

    rich computes where to draw before it writes. Its own refresh thread would let a log line be written in between, on
    the same line. So this task draws instead, and holds the lock that each log line takes.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
    with OUTPUT_LOCK:
        live.start()
    try:
        while True:
            text = Text("\n".join(lines()))
            with OUTPUT_LOCK:
                live.update(text, refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)
    finally:
        with OUTPUT_LOCK:
            live.stop()


def _run_lines(job: "Run") -> list[str]:
    workspaces = job.progress()
    lines = [] if workspaces else [f"reading pairs: {job.enqueued} so far, from {plural(job.lines, 'line')}"]
    if job.store_problem is not None:
        lines.append(f"sealed parts wait: {job.store_problem}")
    return lines + workspace_lines(workspaces)


def workspace_lines(workspaces: "Mapping[str, WorkspaceProgress]") -> list[str]:
    """Return a line for each workspace, and one for all together if there are several.

    Of more than ``MAX_LINES`` only those are listed that are held most seriously, then those with most pairs left.
    """
    if len(workspaces) <= 1:
        return [_workspace_line(name, each) for name, each in workspaces.items()]
    shown = list(workspaces.items())
    if len(shown) > MAX_LINES:
        shown.sort(key=lambda item: (-rate_hold(item[1].pace.hold_cause), -item[1].left))
    return [
        _total_line(list(workspaces.values())),
        *(_workspace_line(name, each) for name, each in shown[:MAX_LINES]),
        *_rest_lines([each for _, each in shown[MAX_LINES:]]),
    ]


def _total_line(every: "Sequence[WorkspaceProgress]") -> str:
    done, left = sum(each.done for each in every), sum(each.left for each in every)
    requests, held = sum(each.pace.requests for each in every), sum(each.pace.hold_cause is not None for each in every)
    line = f"{len(every)} workspaces: {plural(done, 'pair')} done, {left} left, {plural(requests, 'request')}"
    return f"{line}, {held} waiting" if held else line


def _rest_lines(rest: "Sequence[WorkspaceProgress]") -> list[str]:
    if not rest:
        return []
    finished = sum(not each.left for each in rest)
    left = sum(each.left for each in rest)
    return [f"{plural(len(rest), 'other workspace')}: {finished} finished, {left} pairs left"]


def _workspace_line(name: str, progress: "WorkspaceProgress") -> str:
    state, done, left = progress.pace, progress.done, progress.left
    line = f'workspace "{name}": {plural(done, "pair")} done, {left} left, {plural(state.requests, "request")}, ' + (
        f"{state.pace:.0f}/s, quota {state.remaining} of {state.limit} left (reserve {state.reserve_requests})"
        if state.limit
        else "quota unknown until the first response"
    )
    if state.requests > done:
        line += f", {state.requests - done} in flight, retried or not stored yet"
    if state.hold_cause == "stopping":
        line += ", stopping: requests in flight finish first"
    elif state.hold_cause:
        line += f", waiting for {progress.describe_hold(state.hold_cause)}: {state.held_seconds:.0f} s more"
    elif state.pace > 0 and state.limit:
        line += f", about {left / state.pace / 60:.1f} min left"
    return line
