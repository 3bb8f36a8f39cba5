"""The progress of long work: what a line shows at a width, and how fast work is."""

import io
import sys
import threading
from collections import deque

import pytest

from harvester.braze.pace_state import PaceState
from harvester.cli import main
from harvester.cli.layout import Line
from harvester.cli.output import use_color
from harvester.cli.progress import _draw_beside
from harvester.cli.progress_lines import CaptureWork, Reading, Work, capture_lines
from harvester.commands.capture import WorkspaceProgress
from harvester.condition import HOLD_DESCRIPTIONS

HALF = Work("eu", 1234, 1000, 3000, per_second=78.4, seconds_left=7380.0, spare=4247)


def text(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(span.text for span in line)


def texts(*every: Work, width: int = 100) -> list[str]:
    """Return the lines of a capture at 1970-01-01 00:00:00."""
    return [text(line) for line in capture_lines(every, width=width, wall=0.0)]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (100, "1,234 of 3,000 pairs  1,000 saved  78/s  quota left 4,247  2 h 3 min left"),
        (80, "1,234 of 3,000 pairs  1,000 saved  78/s  2 h 3 min left"),
        (60, "1,234 of 3,000 pairs  78/s  2 h 3 min left"),
        (30, "1,234 of 3,000 pairs  78/s  2 h 3 min left"),
    ],
)
def test_a_narrow_line_leaves_out_the_quota_then_what_is_saved(width, expected):
    """Pairs, speed and time left stay, on one line; the bar takes the rest of the width."""
    (line,) = texts(HALF, width=width)
    bar, _, fields = line.rpartition("━ ")
    assert fields == expected
    assert len(line) <= max(width, len(expected))
    assert len(bar.strip("━╸")) == 0


def test_a_bar_is_filled_to_the_share_that_is_answered():
    """A terminal without such characters gets ASCII."""
    half = [Work("eu", 50, 0, 100)]
    (line,) = capture_lines(half, width=40, wall=0.0)
    assert (line[0].text, line[1].text) == ("━" * 7 + "╸", "━" * 7)
    (line,) = capture_lines(half, width=40, wall=0.0, ascii_only=True)
    assert text(line).startswith("#######--------")
    assert text(line).isascii()


def test_a_line_says_what_requests_wait_for_and_until_when():
    """The wait has its own line."""
    held = Work("eu", 1, 1, 3, hold="the rate limit", hold_cause="rate_limited", held_seconds=754.0)
    assert texts(held)[1:] == ["waiting for the rate limit until 00:12:34 UTC  in 12 min"]
    assert texts(held, width=45)[1:] == ["waiting for the rate limit until 00:12:34 UTC"]
    assert texts(held, width=40)[1:] == ["waiting for the rate… until 00:12:34 UTC"]
    stopping = Work("eu", 1, 1, 3, hold="the requests in flight", hold_cause="stopping", held_seconds=9.0)
    assert texts(stopping)[1:] == ["stopping: requests in flight finish first"]


def test_500_workspaces_take_seven_lines():
    """The total comes first, then those that are held most seriously, then the slowest, then the rest as one line."""
    every = [Work(f"w{n:03}", n % 10, 0, 9, 1.0, seconds_left=9.0 - n % 10) for n in range(497)]
    every.append(Work("quota", 1, 0, 2, hold="x", hold_cause="rate_limited", held_seconds=60.0, seconds_left=61.0))
    every.append(Work("halted", 0, 0, 1, hold="x", hold_cause="halted", held_seconds=3600.0))
    every.append(Work("large", 0, 0, 100, 1.0, seconds_left=100.0))
    lines = texts(*every, width=60)
    assert len(lines) == 7
    assert lines[0].endswith("2,227 of 4,576 pairs  498/s  2 waiting  1 min left"), lines[0]
    assert [line.split()[0] for line in lines[1:6]] == ["halted", "quota", "large", "w000", "w010"]
    assert lines[1].endswith("halted until 01:00")
    assert lines[6] == "  495 other workspaces: 49 finished, 2,229 pairs left"
    assert max(map(len, lines)) <= 60


def test_few_workspaces_keep_their_order():
    """Each has a line below the total."""
    assert [line.split()[0] for line in texts(Work("us", 1, 0, 2), Work("eu", 1, 0, 2))[1:]] == ["us", "eu"]


def progress(answered: int, *, hold_cause: str | None = None, held_seconds: float = 0.0) -> WorkspaceProgress:
    """Return the progress of a workspace with 1,000 pairs."""
    pace = PaceState(50.0, 5000, 3000, 1000, 60.0, 4, hold_cause, held_seconds, 0, answered, 0, 0.0, True)  # noqa: FBT003
    return WorkspaceProgress(answered, 0, 1000, pace, HOLD_DESCRIPTIONS.__getitem__)


def test_a_hold_does_not_count_as_slow_work():
    """While the quota is used up, the time left is the wait and then the rest at the speed before it."""
    work = CaptureWork()
    for second in range(11):
        (seen,) = work.measure({"eu": progress(10 * second)}, float(second))
    assert (seen.per_second, seen.seconds_left, seen.spare) == (pytest.approx(10.0), pytest.approx(90.0), 2000)
    for second in range(11, 1000):
        held = progress(100, hold_cause="rate_limited", held_seconds=1000.0 - second)
        (seen,) = work.measure({"eu": held}, float(second))
    assert (seen.per_second, seen.seconds_left) == (None, pytest.approx(91.0))
    (seen,) = work.measure({"eu": progress(100, hold_cause="overloaded", held_seconds=9.0)}, 1000.0)
    assert (seen.seconds_left, seen.hold) == (None, HOLD_DESCRIPTIONS["overloaded"])


def test_reading_a_list_has_a_bar_if_its_size_is_known():
    """The bar is that of the lines, then that of the pairs. Standard input has no size, so it has no bar."""
    reading, shown = Reading(), []
    for second in range(11):
        share = second / 10 if second < 10 else None
        line = reading.line(2000 * second, share, pairs=0, now=float(second), width=60)
        shown.append(text(line))
    assert shown[5].endswith(" 10,000 lines read  2,000/s  5 s left")
    assert shown[5].startswith("\u2501")
    assert shown[10] == "20,000 lines read  2,000/s"
    for second in range(11, 16):
        line = reading.line(20_000, None, pairs=1000 * (second - 10), now=float(second), width=60)
    assert text(line).endswith("\u2501 5,000 pairs  1,000/s  15 s left")
    line = Reading().line(1, None, pairs=7, now=0.0, width=60)
    assert text(line) == "1 line read  7 pairs"


def test_a_list_that_is_read_during_a_capture_has_a_line_below_it():
    """It shows how many lines are read and how fast, and that more will follow."""
    reading = Reading()
    lines = [text(reading.line_below(2000 * second, now=float(second), width=60)) for second in range(11)]
    assert lines[10] == "20,000 lines of the list read, more to come  2,000/s"
    assert text(reading.line_below(1, now=11.0, width=20)) == "1 line of the list read, more to come"


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what is written to it."""

    def __init__(self) -> None:
        """Nothing is written yet."""
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self) -> bool:
        """Return that this is a terminal."""
        return True

    def read_all(self) -> str:
        """Return all that was written."""
        self.flush()
        return self.buffer.getvalue().decode()


class EndAfter(threading.Event):
    """The end of work, after it was waited for a number of times."""

    def __init__(self, waits: int) -> None:
        """Come after ``waits``."""
        super().__init__()
        self.left = waits

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once whether the work has ended."""
        del timeout
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(("terminal", "waits", "shown"), [("xterm", 2, True), ("xterm", 0, False), ("dumb", 2, False)])
def test_long_work_shows_what_it_does_but_not_on_a_terminal_without_control_codes(monkeypatch, terminal, waits, shown):
    """The line is the last step. Short work, and a terminal such as that of an editor, show nothing."""
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(sys, "stderr", Terminal())
    _draw_beside(deque(["copying part 2 of s3://lake"]), EndAfter(waits))
    written = sys.stderr.read_all()
    assert ("copying part 2 of s3://lake  1 s" in written, "\x1b" in written) == (shown, shown)


@pytest.mark.parametrize(
    ("name", "value", "color"), [("TERM", "dumb", False), ("NO_COLOR", "1", False), ("TERM", "xterm", True)]
)
def test_color_is_used_only_if_the_terminal_and_the_user_want_it(monkeypatch, name, value, color):
    """A terminal such as that of an editor shows control codes as text."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    with main.make_context("harvester", ["status"]):
        assert use_color(Terminal()) is color
