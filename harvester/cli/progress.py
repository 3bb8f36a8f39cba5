"""Progress on a terminal: lines that are drawn again four times a second, below the logs."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from harvester.cli.output import plural
from harvester.observability.logs import OUTPUT_LOCK

if TYPE_CHECKING:
    from harvester.commands.capture import Run, WorkspaceProgress
    from harvester.sources import Input

REFRESH_SECONDS = 0.25


def show_reading(pairs: "Input") -> contextlib.AbstractAsyncContextManager[None]:
    """Show how many lines of a source are read."""
    return _show(lambda: [f"read so far: {pairs.lines} lines and events"])


def show_capture(job: "Run") -> contextlib.AbstractAsyncContextManager[None]:
    """Show a line for each workspace while a run lasts."""
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
    lines += [_workspace_line(name, each) for name, each in workspaces.items()]
    return lines


def _workspace_line(name: str, progress: "WorkspaceProgress") -> str:
    state, done = progress.pace, progress.done
    left = max(0, progress.pending_at_start - done)
    line = (
        f'workspace "{name}": {plural(done, "pair")} done, {left} left, {plural(state.requests, "request")}, '
        f"{state.pace:.0f}/s, quota {state.remaining} of {state.limit} left (reserve {state.reserve_requests})"
    )
    if state.requests > done:
        line += f", {state.requests - done} retried or in flight"
    if state.hold_cause == "stopping":
        line += ", stopping: requests in flight finish first"
    elif state.hold_cause:
        line += f", waiting for {progress.describe_hold(state.hold_cause)}: {state.held_seconds:.0f} s more"
    elif state.pace > 0:
        line += f", about {left / state.pace / 60:.1f} min left"
    return line
