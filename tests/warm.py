"""``harvester``, started without the cost of a start: a process that has imported all of it forks one run at a time.

It is a script. A line on stdin is a job: folder, environment and arguments, as JSON. It tells the pid of its child,
which waits for another line, so that a tracer can attach first, and then the child's exit code, negative for a signal.
"""

import asyncio
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)


class Warm:
    """The test's side of it; use it as a context manager."""

    def __enter__(self) -> Self:
        """Start the process."""
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.communicate()

    def run(self, folder: Path, env: dict[str, str], arguments: list[str], *, inject: str) -> tuple[int, str]:
        """Run one command to its end, while strace does to it what ``inject`` says; gives exit code and stderr."""
        pid = self._answer_to(json.dumps([str(folder), env, arguments]))
        trace = ("-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}")
        with subprocess.Popen(["strace", "-f", "-p", pid, "-o", os.devnull, *trace], stderr=subprocess.PIPE) as tracer:
            assert b"attached" in tracer.stderr.readline()
            code = int(self._answer_to("go"))
            tracer.communicate()
        return code, (folder / "said").read_text()

    def _answer_to(self, line: str) -> str:
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().strip()


def _child(folder: str, env: dict[str, str], arguments: list[str]) -> None:
    """Become the command, once told to."""
    import uvloop  # noqa: PLC0415 - imported long before, but only where this is the script

    from harvester.cli import main  # noqa: PLC0415 - likewise

    uvloop.new_event_loop = asyncio.new_event_loop  # its wake-ups are writes: a part's would not be found
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY)  # where only a parent may trace
    os.read(0, 100)
    os.chdir(folder)
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    main(arguments, prog_name="harvester")


def _serve() -> None:
    """Fork until stdin ends."""
    import uvloop  # noqa: F401, PLC0415 - the warmth

    from harvester import ledger, run, settings, sinks, sources, telemetry  # noqa: F401, PLC0415 - likewise
    from harvester.cli import main  # noqa: F401, PLC0415 - likewise

    while job := os.read(0, 65_536):
        pid = os.fork()
        if pid == 0:
            os.write(1, b"%d\n" % os.getpid())
            _child(*json.loads(job))
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _serve()
