"""The measured processes: harvester, the alternatives in environments of their own, and the servers.

A job is one command. The kernel says what it used when it has ended (``resource_usage.py``). The alternatives are
never dependencies: each script in ``peers/`` names its requirements in its first lines, and gets an environment in
``.cache/`` at its first use.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
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


@dataclass(frozen=True, slots=True)
class Used:
    """What one process used from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    status: int


def run(*commands: Sequence[str], timeout_seconds: float = 900.0) -> list[Used]:
    """Run commands side by side to their ends. One that exceeds the timeout is killed; its status shows it."""
    watched = [sys.executable, "-S", str(HERE / "resource_usage.py"), str(timeout_seconds)]
    going = [
        subprocess.Popen([*watched, *command], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    return [Used(*json.loads(process.communicate()[0])) for process in going]


def done(command: Sequence[str]) -> Used:
    """Run one command; end the benchmark if it fails."""
    (used,) = run(command)
    if used.status:
        raise SystemExit(f"{' '.join(command)} ended with status {used.status}")
    return used


@contextlib.contextmanager
def serving(script: str, given: dict[str, Any] | None = None) -> Iterator["Server"]:
    """Run a server of this folder for a while, in its own process."""
    command = [sys.executable, str(HERE / script), json.dumps(given or {})]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    server = Server(process)
    try:
        yield server
    finally:
        server.stop()


class Server:
    """A server at ``url``, which is the first line that it prints."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Wait until it listens."""
        self._process = process
        self.url = self.next_line()
        self._output = ""

    def next_line(self) -> str:
        """Wait for the next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> str:
        """Stop it, and return what it printed at its end."""
        if self._process.poll() is None:
            self._output, _ = self._process.communicate()
        return self._output


def harvester(url: str, pairs: Path, out: Path, *options: str) -> list[str]:
    """Give the command of a harvester, everything on, into a folder that is emptied for it."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "harvester", "run", str(pairs), "--endpoint", url, "-o", str(out)]
    return [*command, "--log-level", "error", *options]


def peer(
    name: str, url: str, pairs: Path, out: Path, *options: str, max_requests: int = 0, seconds: float = 0.0
) -> list[str]:
    """Return the command of a peer. It may send ``max_requests`` in ``seconds``; 0 means no limit."""
    shutil.rmtree(out, ignore_errors=True)
    command = [str(_environment(name, needs(name))), str(PEERS / f"{name}.py"), url, str(pairs), str(out)]
    return [*command, str(max_requests), str(seconds), *options]


def needs(name: str) -> list[str]:
    """Read what a peer needs from the block of metadata at the top of its script."""
    text = (PEERS / f"{name}.py").read_text()
    block = re.search(r"(?m)^# /// script\n((?:# .*\n)+)# ///$", text)
    assert block is not None, f"{name}.py does not say what it needs"
    listed: list[str] = tomllib.loads(re.sub(r"(?m)^# ", "", block[1]))["dependencies"]
    return listed


def _environment(name: str, wanted: list[str]) -> Path:
    """Give the interpreter of a peer's own environment, which is made unless it holds just what is wanted."""
    folder = CACHE / name
    python, note = folder / "bin" / "python", folder / "installed.json"
    if not note.exists() or json.loads(note.read_text()) != wanted:
        print(f"installing {', '.join(wanted)} for {name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        note.write_text(json.dumps(wanted))
    return python


def write_pairs(path: Path, count: int) -> Path:
    """Write a list of sends, twenty to a campaign."""
    with path.open("w") as file:
        file.write("campaign_id,send_id\n")
        file.writelines(f"{uuid.UUID(int=at // 20 * 7919)},send-{at:08d}\n" for at in range(count))
    return path
