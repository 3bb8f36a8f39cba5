"""Starts the measured processes: harvester, the alternatives, and the servers.

A job is one command. ``resource_usage.py`` measures it with the figures of the kernel. The alternatives are not
dependencies of the project: each script in ``peers/`` lists its requirements in its first lines, and is installed in
its own environment in ``.cache/`` at the first use.
"""

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = HERE.parent / "peers"
CACHE = HERE.parent / ".cache"
KEY = "demo-key"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
    "BRAZE_API_KEY": KEY,
    "PYTHONPATH": str(HERE.parent.parent),
}

SERVERS = {"Python": "fast_server.py", "nginx": "nginx_server.py"}
"""The servers that send prepared responses, and their scripts."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The time and memory that one process used, and its exit status."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    status: int


def run(*commands: Sequence[str], timeout_seconds: float = 900.0) -> list[Usage]:
    """Run commands at the same time until all end. A command that exceeds the timeout is killed (status -9)."""
    measured = [sys.executable, "-S", str(HERE / "resource_usage.py"), str(timeout_seconds)]
    processes = [
        subprocess.Popen([*measured, *command], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    return [Usage(*json.loads(process.communicate()[0])) for process in processes]


def run_checked(command: Sequence[str]) -> Usage:
    """Run one command; raises ``SystemExit`` if it fails."""
    (usage,) = run(command)
    if usage.status:
        raise SystemExit(f"{' '.join(command)} ended with status {usage.status}")
    return usage


@contextlib.contextmanager
def start_server(script: str, settings: dict[str, Any] | None = None) -> Iterator["Server"]:
    """Run a server from this folder in its own process, until the context ends."""
    command = [sys.executable, str(HERE / script), json.dumps(settings or {})]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    server = Server(process)
    try:
        yield server
    finally:
        server.stop()


class Server:
    """A running server. The first line that it prints is its ``url``."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Wait until the server accepts connections."""
        self._process = process
        self.url = self.next_line()
        self._output = ""

    def next_line(self) -> str:
        """Wait for the next line that the server prints, and return it."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> str:
        """Stop the server, and return what it printed at its end."""
        if self._process.poll() is None:
            self._output, _ = self._process.communicate()
        return self._output


def find_free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class CommitMissing(SystemExit):
    """An earlier version of harvester is not in this clone."""


def check_out(commit: str, folder: Path) -> Path:
    """Write the files of an earlier version of harvester to a new folder; returns the folder.

    Raises ``CommitMissing``.
    """
    archive = subprocess.run(["git", "archive", commit], cwd=HERE.parent.parent, check=False, capture_output=True)
    if archive.returncode:
        raise CommitMissing(
            f"cannot read commit {commit}: {archive.stderr.decode().strip()}. "
            "In a shallow clone, run git fetch --unshallow"
        )
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def harvester(*arguments: str, version: Path | None = None) -> list[str]:
    """Return a command of harvester: that of this checkout, or of an earlier ``version`` in a folder."""
    environment = [] if version is None else ["env", f"PYTHONPATH={version}"]
    return [*environment, sys.executable, "-P", "-m", "harvester", *arguments]  # -P: not that of the current folder


def harvester_command(url: str, pairs: Path, out: Path, *options: str, version: Path | None = None) -> list[str]:
    """Return the command of ``harvester run`` with default settings. Deletes the output folder ``out``."""
    shutil.rmtree(out, ignore_errors=True)
    run = ("run", str(pairs), "--endpoint", url, "-o", str(out), "--log-level", "error")
    return harvester(*run, *options, version=version)


def peer_command(
    name: str, url: str, pairs: Path, out: Path, *options: str, max_requests: int = 0, seconds: float = 0.0
) -> list[str]:
    """Return the command of an alternative, limited to ``max_requests`` in ``seconds``; 0 means no limit."""
    shutil.rmtree(out, ignore_errors=True)
    return [*peer_script(name), url, str(pairs), str(out), str(max_requests), str(seconds), *options]


def peer_script(name: str) -> list[str]:
    """Return the command that starts an alternative, without its arguments."""
    return [str(_create_environment(name, load_requirements(name))), str(PEERS / f"{name}.py")]


def load_requirements(name: str) -> list[str]:
    """Read the requirements of an alternative from the metadata block at the top of its script."""
    text = (PEERS / f"{name}.py").read_text()
    block = re.search(r"(?m)^# /// script\n((?:# .*\n)+)# ///$", text)
    assert block is not None, f"{name}.py has no metadata block"
    requirements: list[str] = tomllib.loads(re.sub(r"(?m)^# ", "", block[1]))["dependencies"]
    return requirements


def _create_environment(name: str, requirements: list[str]) -> Path:
    """Return the interpreter of an environment with exactly these requirements; creates it if needed."""
    folder = CACHE / name
    python, installed = folder / "bin" / "python", folder / "installed.json"
    if not installed.exists() or json.loads(installed.read_text()) != requirements:
        print(f"installing {', '.join(requirements)} for {name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        installed.write_text(json.dumps(requirements))
    return python


def write_pairs(path: Path, count: int) -> Path:
    """Write a list of ``count`` sends, twenty for each campaign."""
    with path.open("w") as file:
        file.write("campaign_id,send_id\n")
        file.writelines(f"{uuid.UUID(int=at // 20 * 7919)},send-{at:08d}\n" for at in range(count))
    return path
