"""The harvester as processes that begin warm: forked from one that has imported it all, they start in no time.

For tests that kill it dozens of times. What a start itself does is for ``Command.start`` to show.
"""

import importlib
import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path

from harvester.cli import main

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["forked", "pytest"])
for _name in ("run", "ledger", "settings", "sources", "sinks.bucket", "stores", "braze.client"):
    importlib.import_module(f"harvester.{_name}")
importlib.import_module("uvloop")


def fork(folder: Path, env: dict[str, str], *arguments: str) -> BaseProcess:
    """Begin ``harvester`` in a folder, with this environment and no other; its output ends up in ``output`` there."""
    process = _context.Process(target=_harvester, args=(folder, env, arguments))
    process.start()
    return process


def _harvester(folder: Path, env: dict[str, str], arguments: tuple[str, ...]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    main(list(arguments))
