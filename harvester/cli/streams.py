"""The standard streams of a process: what happens if one is closed, or cannot be written."""

import io
import os
import sys
from typing import Any, BinaryIO, TextIO

import click

CLOSED_STDOUT = "standard output is closed; open it, or {}"
"""The error of a command whose output would be lost, with what else to do."""

DISCARD = "redirect it to /dev/null"


def open_streams() -> None:
    """Make the standard streams usable. Call it before anything is opened or printed.

    A closed stream is /dev/null from now on: otherwise a file or socket would get its number. Output to a closed
    standard output raises ``click.UsageError``, because it would be lost. Standard error never fails.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, _ClosedOutput() if name == "stdout" else os.fdopen(number, mode))
    if sys.__stderr__ is not None and sys.stderr is sys.__stderr__:  # a test may have replaced it
        sys.stderr = _open_lossy(sys.__stderr__)


def drop_output() -> None:
    """Discard further output: otherwise the interpreter would fail to flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def get_stdin() -> BinaryIO:
    """Return standard input without a buffer.

    A thread may still wait for a silent pipe when the process ends. It would hold the lock of the buffer, which Python
    needs to close standard input.
    """
    stdin: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return stdin


class _ClosedOutput(io.TextIOBase):
    def write(self, text: str) -> int:
        if text:
            raise click.UsageError(CLOSED_STDOUT.format(DISCARD))
        return 0

    def fileno(self) -> int:
        return 1


class _LossyFile(io.FileIO):
    """Drops what cannot be written: a full disk under standard error must not change the result of a command."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)  # None if a pipe is full and must not block
        except OSError:
            return len(data)


def _open_lossy(stream: TextIO) -> TextIO:
    raw = _LossyFile(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True)
