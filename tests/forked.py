"""The harvester as processes that begin warm: forked from one that has imported it all, they start in no time.

For tests that kill it dozens of times. What a start itself does is for ``Command.start`` to show.
"""

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
# By the names of what is installed: Python 3.11's server does not look where this file lies, and says nothing.
_PRELOADED = ("cli", "run", "sinks.bucket", "sources")
_context.set_forkserver_preload([*(f"harvester.{name}" for name in _PRELOADED), "sqlalchemy.dialects.sqlite", "uvloop"])


def fork(folder: Path, env: dict[str, str], *arguments: str) -> BaseProcess:
    """Begin ``harvester`` in a folder, with this environment and no other; its output ends up in ``output`` there."""
    process = _context.Process(target=_harvester, args=(folder, env, arguments))
    process.start()
    return process


def _harvester(folder: Path, env: dict[str, str], arguments: tuple[str, ...]) -> None:
    from harvester.cli import main  # noqa: PLC0415 - whoever imports this file has no need of it

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    main(list(arguments))
