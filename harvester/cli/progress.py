"""Draws the progress of long work on a terminal, four times a second, below the logs.

The only module that imports rich, and only if stderr is a terminal: the import takes 60 to 100 ms.
"""

import asyncio
import contextlib
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from harvester.cli.layout import Line, Span, shorten
from harvester.cli.output import plural
from harvester.clock import SystemClock

if TYPE_CHECKING:
    from harvester.cli.short_log import ShortLog
    from harvester.commands.capture import Run
    from harvester.sources import Input

REFRESH_SECONDS = 0.25

_FREE_COLUMNS = 3
"""Room for the ``^C`` that a terminal shows behind the cursor: on a full line it would begin another one."""

Lines = Callable[[float, int, bool], list[Line]]
"""Returns the lines at a monotonic time for a width; the last argument is whether only ASCII can be shown."""

Show = Callable[[str], None]
"""Shows what a command is doing."""


def defer_rich() -> None:
    """Let ``import rich`` fail until progress is drawn. structlog would import it for its tracebacks, if it can."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type] # Python allows None, and then refuses the import


def show_reading(listed: "Input") -> contextlib.AbstractAsyncContextManager[None]:
    """Show how far the lists of a command are read."""
    return _show(_create_reading(listed))


def _create_reading(listed: "Input") -> Lines:
    from harvester.cli.progress_lines import Reading

    reading = Reading()
    return lambda now, width, ascii_only: [
        reading.line(listed.lines, listed.share_read, pairs=listed.pairs, now=now, width=width, ascii_only=ascii_only)
    ]


def show_capture(
    job: "Run", listed: "Input", log: "ShortLog | None" = None, *, workspaces: int = 1
) -> contextlib.AbstractAsyncContextManager[None]:
    """Show how far a run is, and the workspaces that matter, while it lasts, and how many warnings ``log`` counted.

    Lines of hundreds of ``workspaces`` take 10 ms, so they are drawn less often.
    """
    from harvester.cli.progress_lines import CaptureWork, Reading, capture_lines

    get_reading, work, reading = _create_reading(listed), CaptureWork(), Reading()

    def get_lines(now: float, width: int, ascii_only: bool) -> list[Line]:  # noqa: FBT001 - see ``Lines``
        progress, problem = job.progress(), job.store_problem
        above = [] if problem is None else [[Span(shorten(f"sealed parts wait: {problem}", width), "yellow")]]
        if log is not None and log.repeated:
            above.insert(0, [Span(f"{plural(log.repeated, 'more warning')} of the same causes", "bright_black")])
        if not progress:
            return above + get_reading(now, width, ascii_only)
        every = work.measure(progress, now)
        below = [reading.line_below(listed.lines, now=now, width=width)] if job.is_reading_lists else []
        return above + capture_lines(every, width=width, wall=job.wall, ascii_only=ascii_only) + below

    return _show(get_lines, refresh_seconds=REFRESH_SECONDS * (1 + workspaces // 100))


@contextlib.asynccontextmanager
async def _show(lines: Lines, refresh_seconds: float = REFRESH_SECONDS) -> AsyncIterator[None]:
    """Show lines while the body runs, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    view = asyncio.create_task(_draw(lines, refresh_seconds), name="progress")
    try:
        yield
    finally:
        view.cancel()
        await asyncio.wait([view])


async def _draw(lines: Lines, refresh_seconds: float) -> None:
    """Draw the lines again and again, until this is cancelled."""
    loop = asyncio.get_running_loop()
    with _drawing(lines) as draw:
        while True:
            draw(loop.time())
            await asyncio.sleep(refresh_seconds)


@contextlib.contextmanager
def show_work(text: str) -> Iterator[Show]:
    """Show what a command that occupies this thread is doing, and for how long.

    Yields a function that changes the text.
    """
    steps, ended = deque([text], maxlen=1), threading.Event()
    drawing = threading.Thread(target=_draw_beside, args=(steps, ended), name="progress")
    if sys.stderr.isatty():
        drawing.start()
    try:
        yield steps.append
    finally:
        ended.set()
        if drawing.ident is not None:
            drawing.join()


def _draw_beside(steps: deque[str], ended: threading.Event) -> None:
    """Draw the last step until the work has ended. Short work is not shown."""
    if ended.wait(REFRESH_SECONDS):
        return
    from harvester.cli.progress_lines import work_line

    clock = SystemClock()
    began = clock.monotonic()
    with _drawing(lambda now, width, _: [work_line(steps[-1], now - began, width)]) as draw:
        while not ended.wait(REFRESH_SECONDS):
            draw(clock.monotonic())


@contextlib.contextmanager
def _drawing(lines: Lines) -> Iterator[Callable[[float], None]]:
    """Yield a function that draws the lines of a monotonic time; erases them at the end.

    rich computes where to draw before it writes. Its own refresh thread would let a log line be written in between, on
    the same line. So the caller draws, and this holds the lock that each log line takes.
    """
    if sys.modules.get("rich", True) is None:  # see ``defer_rich``
        del sys.modules["rich"]
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from harvester.observability.logs import OUTPUT_LOCK

    console = Console(stderr=True)
    ascii_only = not console.encoding.startswith("utf")
    live = Live(console=console, auto_refresh=False, transient=True)

    def draw(now: float) -> None:
        texts = [Text.assemble(*line) for line in lines(now, console.width - _FREE_COLUMNS, ascii_only)]
        with OUTPUT_LOCK:
            live.update(Text("\n", no_wrap=True, overflow="ellipsis").join(texts), refresh=True)

    with OUTPUT_LOCK:
        live.start()
    try:
        yield draw
    finally:
        with OUTPUT_LOCK:
            live.stop()
