"""Servers for tests: programs of this machine, free ports, and waiting until a server responds."""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web


def require_program(program: str) -> str:
    """Find a server's program. If it is missing, CI fails and a developer's shell skips."""
    found = shutil.which(program)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{program} is not installed, and CI must not skip", pytrace=False)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def free_port() -> int:
    """Return a port that is free and outside the range of outgoing connections, so that it stays free.

    A killed server finds it again, and a client that tries it meanwhile is not connected to itself.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class ServerEnded(Exception):  # noqa: N818 - it says what happened
    """A server ended before it answered."""


def wait_until_responding(port: int, *servers: subprocess.Popen, seconds: float = 60.0) -> None:
    """Wait until a server answers at all. Raises ``ServerEnded`` when one of those it needs has ended."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            if any(server.poll() is not None for server in servers):
                raise ServerEnded from None
            if time.monotonic() > end:
                raise
            threading.Event().wait(0.1)
        else:
            return


def wait_until_listening(port: int, server: subprocess.Popen) -> None:
    """Wait until a server that may speak another protocol than HTTP accepts connections."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not listen"
            threading.Event().wait(0.05)
        else:
            return


@contextmanager
def run_server(*command: str, **options) -> Iterator[subprocess.Popen]:
    """Run a server as a child process, killed at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def serve_app(app: web.Application) -> Iterator[int]:
    """Serve an application on a loop and thread of its own; yield its port."""
    loop, ports = asyncio.new_event_loop(), []
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await done.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()
