"""Warm processes of harvester: forked from one that has imported everything, they start at once.

They are for tests with dozens of kills, and for commands that run to their end. ``Command.start`` starts a cold one.
"""

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO

from tests.support.next_version import NEXT_VERSION, become_next_version

_context = multiprocessing.get_context("forkserver")
# Installed modules: the server of Python 3.11 does not find modules beside this file, and reports no error.
_PRELOADED = (
    "cli",
    "commands.audit",
    "commands.capture",
    "commands.doctor",
    "commands.estimate",
    "commands.rebuild",
    "service.service",
    "simulator",
    "storage.bucket",
    "sources",
    "datasets",
    "web",
)
_context.set_forkserver_preload([
    *(f"harvester.{name}" for name in _PRELOADED), "sqlalchemy.dialects.sqlite", "uvloop",
    "tests.support.preloaded",  # found only if tests run in the project's folder; elsewhere forks are slower
])  # fmt: skip

_SHARED_SERVER = "SERVER_OF_WARM_PROCESSES"


def share_server() -> None:
    """Start the server of warm processes for the workers of this process, which then start none of their own."""
    if sys.version_info >= (3, 14):
        return  # its server requires a key that only its own process has
    forkserver.ensure_running()
    os.environ[_SHARED_SERVER] = forkserver._forkserver._forkserver_address


def use_shared_server() -> None:
    """Fork from the server that this worker's parent has started, if any."""
    if address := os.environ.get(_SHARED_SERVER):
        server = forkserver._forkserver
        server._forkserver_address, server.ensure_running = address, resource_tracker.ensure_running
        server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)  # forks inherit it, and do not use it


Streams = tuple[Connection, Connection, Connection]
"""Standard input, output and error."""

MOST_READINGS = "MOST_READINGS_OF_A_BATCH"
"""A variable of a warm process: how many readings are a batch, so that a test of two batches needs few captures."""

_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)


def fork(
    folder: Path, env: dict[str, str], *arguments: str, streams: Streams | None = None, held: Connection | None = None,
    few_threads: bool = False,
) -> BaseProcess:  # fmt: skip
    """Start ``harvester`` in a folder, with this environment and no other.

    Without ``streams``, its output goes to the file ``output`` in the folder. With ``held``, it waits until that
    connection is closed at its other end, so that a tracer can attach. With ``few_threads``, each pool has one thread,
    and the event loop is Python's own, because uvloop wakes up by writes.
    """
    process = _context.Process(target=_run_harvester, args=(folder, env, arguments, streams, held, few_threads))
    process.start()
    return process


class WarmProcess:
    """A warm process with pipes as a shell makes them, and the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, folder: Path, env: dict[str, str], *arguments: str, output_device: str | None = None) -> None:
        """Start it; its standard output is a pipe, or a device."""
        (stdin, self._stdin), (out, out_writer), (err, err_writer) = (_context.Pipe(duplex=False) for _ in range(3))
        if output_device is not None:
            out_writer.close()
            out_writer = Connection(os.open(output_device, os.O_WRONLY), readable=False)
        with stdin, out_writer, err_writer:
            self._process = fork(folder, env, *arguments, streams=(stdin, out_writer, err_writer))
        self.stdout, self.stderr = _open_pipe(out), _open_pipe(err)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the signal that ended it, negative; None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, stdin: bytes = b"") -> tuple[bytes, bytes]:
        """Wait for the process to end; return the output and errors that were not read yet."""
        with self.stdout, self.stderr, ThreadPoolExecutor(3) as threads:
            threads.submit(_write_all, self._stdin, stdin)
            written = tuple(threads.map(lambda file: file.read(), (self.stdout, self.stderr)))
            self._process.join()
        return written


def _open_pipe(pipe: Connection) -> BinaryIO:
    with pipe:
        return os.fdopen(os.dup(pipe.fileno()), "rb")


def _write_all(pipe: Connection, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(pipe.fileno()), "wb") as file:
        pipe.close()
        file.write(data)


def run_with_fault(folder: Path, env: dict[str, str], *arguments: str, inject: str) -> tuple[int, str]:
    """Run it to its end under strace with the fault ``inject``; return the exit code and its output."""
    trace = ("-o", os.devnull, "-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}")
    return run_traced(folder, env, *arguments, strace=trace, few_threads=True)  # since strace counts in each thread


def run_traced(
    folder: Path, env: dict[str, str], *arguments: str, strace: Sequence[str], few_threads: bool = False
) -> tuple[int, str]:
    """Run it to its end under strace with these options; return the exit code and its output."""
    child_end, parent_end = _context.Pipe(duplex=False)
    with child_end, parent_end:
        process = fork(folder, env, *arguments, held=child_end, few_threads=few_threads)
        tracing = ["strace", "-f", "-p", str(process.pid), *strace]
        with subprocess.Popen(tracing, stderr=subprocess.PIPE) as tracer:
            assert b"attached" in tracer.stderr.readline()
            parent_end.close()
            process.join()
            tracer.communicate()
    return process.exitcode, (folder / "output").read_text()


def _run_harvester(
    folder: Path,
    env: dict[str, str],
    arguments: tuple[str, ...],
    streams: Streams | None,
    held: Connection | None,
    few_threads: bool,  # noqa: FBT001 - a process takes its arguments by position
) -> None:
    import uvloop  # noqa: PLC0415 - only the child process needs it

    from harvester.cli import main  # noqa: PLC0415 - as above
    from harvester.engine import committer  # noqa: PLC0415 - as above

    if env.pop(NEXT_VERSION, None):
        become_next_version()
    if most := env.pop(MOST_READINGS, None):
        committer.MAX_OUTCOMES = int(most)
    if few_threads:
        uvloop.new_event_loop = asyncio.new_event_loop
        ThreadPoolExecutor.__init__.__defaults__ = (1, *ThreadPoolExecutor.__init__.__defaults__[1:])
    if held is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY)  # allow tracing where only a parent may trace
        held.poll(None)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    if streams is None:
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        descriptors = (os.open(os.devnull, os.O_RDONLY), output, output)
    else:
        descriptors = tuple(each.fileno() for each in streams)
    for stream, descriptor in enumerate(descriptors):
        os.dup2(descriptor, stream)
    if streams is not None:
        for each in streams:
            each.close()
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - it stays open, as in any process
    main(list(arguments), prog_name="harvester")
