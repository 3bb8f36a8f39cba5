"""The tortured processes, forked from a warm one: harvester with short leases and a wrong clock, and the stand-in.

They are forked from a process that has imported everything, so that kills hit the work and not Python's start. A
lease of two minutes lasts a second here, and waits of minutes are short; nothing else differs from the command.
"""

import asyncio
import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from harvester.simulator import Simulator, SimulatorConfig

LEASE_SECONDS = 1.0
PRELOADED = (
    "cli.run",
    "cli.serve",
    "commands.capture",
    "service.service",
    "storage.bucket",
    "sources",
    "sources.brokers.redis",
)

_context = multiprocessing.get_context("forkserver")
# The main module too; otherwise each child would import it again.
_context.set_forkserver_preload(
    ["__main__", *(f"harvester.{name}" for name in PRELOADED), "sqlalchemy.dialects.sqlite", "uvloop"]
)


def begin(folder: Path, env: dict[str, str], arguments: list[str], *, output: Path, jumps: list[float]) -> BaseProcess:
    """Begin ``harvester`` in a folder, with this environment and no other.

    Its clock is wrong by the first of ``jumps``, in seconds, and by the next one after each SIGUSR1.
    """
    process = _context.Process(target=_harvester, args=(folder, env, arguments, output, jumps))
    process.start()
    return process


def stand_in(config: SimulatorConfig) -> BaseProcess:
    """Begin the stand-in for Braze, which serves until it is killed."""
    process = _context.Process(target=_stand_in, args=(config,), daemon=True)
    process.start()
    return process


def _stand_in(config: SimulatorConfig) -> None:
    async def serve() -> None:
        async with Simulator(config):
            await asyncio.Event().wait()

    asyncio.run(serve())


def _harvester(folder: Path, env: dict[str, str], arguments: list[str], output: Path, jumps: list[float]) -> None:
    from harvester.cli import main  # noqa: PLC0415 - the torturer itself has no need of it

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(opened, stream)
    _hurry()
    _go_wrong(jumps)
    main(arguments)


def _hurry() -> None:
    """Shorten what waits: leases, and looks that come every minute."""
    from harvester import schedule  # noqa: PLC0415 - likewise
    from harvester.braze import gate  # noqa: PLC0415 - likewise
    from harvester.engine import upkeep, uploader  # noqa: PLC0415 - likewise
    from harvester.ledger import database  # noqa: PLC0415 - likewise
    from harvester.service import service  # noqa: PLC0415 - likewise
    from harvester.sources.brokers import redis  # noqa: PLC0415 - likewise

    database.LEASE_SECONDS = LEASE_SECONDS
    redis.RedisBroker.__init__.__kwdefaults__["lease_seconds"] = LEASE_SECONDS
    service.KEYS_SECONDS = upkeep.HOUSEKEEPING_SECONDS = 0.3
    schedule.DEFERRAL_FIRST_SECONDS, schedule.DEFERRAL_MAX_SECONDS = 0.2, 2.0
    gate.OVERLOAD_FIRST_SECONDS, gate.OVERLOAD_MAX_SECONDS = 0.5, 2.0
    uploader.FIRST_PAUSE_SECONDS, uploader.MAX_PAUSE_SECONDS = 0.2, 1.0


def _go_wrong(jumps: list[float]) -> None:
    real_time = time.time
    time.time = lambda: real_time() + jumps[0]

    def jump(_signal: int, _frame: object) -> None:
        if len(jumps) > 1:
            jumps.pop(0)

    signal.signal(signal.SIGUSR1, jump)
