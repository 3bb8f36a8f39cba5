"""The harvester as processes that begin warm: forked from one that has imported it all, they start in no time.

For tests that kill it dozens of times. What a start itself does is for ``Command.start`` to show.
"""

import asyncio
import ctypes
import multiprocessing
import os
import subprocess
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
# By the names of what is installed: Python 3.11's server does not look where this file lies, and says nothing.
_PRELOADED = ("cli", "run", "sinks.bucket", "sources")
_context.set_forkserver_preload([*(f"harvester.{name}" for name in _PRELOADED), "sqlalchemy.dialects.sqlite", "uvloop"])

_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)


def fork(folder: Path, env: dict[str, str], *arguments: str, held: Connection | None = None) -> BaseProcess:
    """Begin ``harvester`` in a folder, with this environment and no other; its output ends up in ``output`` there.

    Where it is ``held``, it does nothing until that connection is closed at its other end, so that a tracer can attach.
    """
    process = _context.Process(target=_harvester, args=(folder, env, arguments, held))
    process.start()
    return process


def injected(folder: Path, env: dict[str, str], *arguments: str, inject: str) -> tuple[int, str]:
    """Run it to its end, while strace does to it what ``inject`` says; gives the exit code and what it said."""
    theirs, ours = _context.Pipe(duplex=False)
    with theirs, ours:
        process = fork(folder, env, *arguments, held=theirs)
        trace = ("-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}")
        tracing = ["strace", "-f", "-p", str(process.pid), "-o", os.devnull, *trace]
        with subprocess.Popen(tracing, stderr=subprocess.PIPE) as tracer:
            assert b"attached" in tracer.stderr.readline()
            ours.close()
            process.join()
            tracer.communicate()
    return process.exitcode, (folder / "output").read_text()


def _harvester(folder: Path, env: dict[str, str], arguments: tuple[str, ...], held: Connection | None) -> None:
    import uvloop  # noqa: PLC0415 - whoever imports this file has no need of it

    from harvester.cli import main  # noqa: PLC0415 - likewise

    if held is not None:
        uvloop.new_event_loop = asyncio.new_event_loop  # its wake-ups are writes: a part's would not be found
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY)  # where only a parent may trace
        held.poll(None)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    main(list(arguments))
