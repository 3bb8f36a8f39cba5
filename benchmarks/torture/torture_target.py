"""Starts the processes under test: harvester with short leases and a wrong clock, and the stand-in.

They are forked from a process that has imported everything, so that a kill interrupts their work and not the imports.
A lease lasts a few seconds instead of one minute, and long waits are shorter. Nothing else differs from the command.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import time
from contextlib import AsyncExitStack, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from harvester.simulator import Simulator, SimulatorConfig

LEASE_SECONDS = 1.0
REPLICA_LEASE_SECONDS = 5.0
"""Four processes and their servers share the cores, so that a renewal may take seconds."""

PRELOADED = (
    "cli.run",
    "cli.serve",
    "commands.capture",
    "service.service",
    "storage.bucket",
    "sources",
    "sources.brokers.redis",
    "sources.brokers.rabbitmq",
    "ledger.postgresql",
)

_context = multiprocessing.get_context("forkserver")
# The main module too; otherwise each child would import it again.
_context.set_forkserver_preload(
    [
        "__main__",
        *(f"harvester.{name}" for name in PRELOADED),
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.dialects.postgresql.psycopg",
        "uvloop",
    ]
)


def start_harvester(
    folder: Path, env: dict[str, str], arguments: list[str], *, output: Path, jumps: list[float], replica: bool = False
) -> BaseProcess:
    """Start ``harvester`` in a folder, with only this environment.

    ``jumps`` contains the errors of its clock, in seconds: the first one applies until a SIGUSR1, then the next one.
    """
    output.write_bytes(b"")  # the process may be killed before it opens it
    process = _context.Process(
        target=_harvester, args=(folder, env, arguments, output, jumps), kwargs={"replica": replica}, daemon=True
    )
    process.start()
    return process


def start_stand_in(*configs: SimulatorConfig) -> BaseProcess:
    """Start the stand-in for the Braze API, which serves until it is killed: one workspace for each configuration."""
    process = _context.Process(target=_stand_in, args=(configs,), daemon=True)
    process.start()
    return process


def wait_until_serving(port: int) -> None:
    """Wait until the stand-in accepts connections."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)


def _stand_in(configs: tuple[SimulatorConfig, ...]) -> None:
    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for config in configs:
                simulator = Simulator(config)
                _charge_logged(simulator)
                await stack.enter_async_context(simulator)
            await asyncio.Event().wait()

    asyncio.run(serve())


def _charge_logged(simulator: Simulator) -> None:
    """Charge the requests of the present window that an earlier stand-in has logged, as Braze forgets none."""
    window, log = simulator.config.window_seconds, simulator.config.log
    began = time.time() // window * window
    for line in log.read_bytes().splitlines() if log else ():
        answered = json.loads(line)
        if answered["at"] >= began and answered["remaining"] is not None and answered["status"] != 429:
            simulator.quota.charge(answered["at"])


def _harvester(
    folder: Path, env: dict[str, str], arguments: list[str], output: Path, jumps: list[float], *, replica: bool
) -> None:
    from harvester.cli import main  # noqa: PLC0415 - the parent process does not need it

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(opened, stream)
    _shorten_waits()
    if replica:
        _shorten_waits_for_others()
    _set_wrong_clock(jumps)
    main(arguments)


def _shorten_waits() -> None:
    """Shorten leases, pauses and periodic work."""
    from harvester import schedule  # noqa: PLC0415 - see above
    from harvester.braze import gate  # noqa: PLC0415 - see above
    from harvester.engine import periodic_work, uploader  # noqa: PLC0415 - see above
    from harvester.ledger import database  # noqa: PLC0415 - see above
    from harvester.service import reload  # noqa: PLC0415 - see above
    from harvester.sources.brokers import redis  # noqa: PLC0415 - see above

    database.LEASE_SECONDS = LEASE_SECONDS
    redis.RedisBroker.__init__.__kwdefaults__["lease_seconds"] = LEASE_SECONDS
    reload.CHECK_SECONDS = periodic_work.HOUSEKEEPING_SECONDS = 0.3
    schedule.DEFERRAL_FIRST_SECONDS, schedule.DEFERRAL_MAX_SECONDS = 0.2, 2.0
    gate.OVERLOAD_FIRST_SECONDS, gate.OVERLOAD_MAX_SECONDS = 0.5, 2.0
    uploader.FIRST_PAUSE_SECONDS, uploader.MAX_PAUSE_SECONDS = 0.2, 1.0


def _shorten_waits_for_others() -> None:
    """Shorten what depends on other replicas, and the age of batches, so that one that is soon killed seals some."""
    from harvester.engine import committer, dispatcher, served_workspaces  # noqa: PLC0415 - see above
    from harvester.ledger import availability, database, serving  # noqa: PLC0415 - see above
    from harvester.sources.messages.trigger import Trigger  # noqa: PLC0415 - see above

    database.LEASE_SECONDS = REPLICA_LEASE_SECONDS
    serving.UNSERVED_SECONDS = served_workspaces.UNSERVED_SECONDS = 2 * REPLICA_LEASE_SECONDS
    served_workspaces.SAVE_SECONDS = dispatcher.SHARED_POLL_SECONDS = REPLICA_LEASE_SECONDS / 4
    committer.MAX_AGE_SECONDS = availability.LONGEST_WAIT_SECONDS = 1.0
    Trigger.__init__.__kwdefaults__["wait_max_seconds"] = 2.0  # type: ignore[index]


def _set_wrong_clock(jumps: list[float]) -> None:
    real_time = time.time
    time.time = lambda: real_time() + jumps[0]

    def jump(_signal: int, _frame: object) -> None:
        if len(jumps) > 1:
            jumps.pop(0)

    signal.signal(signal.SIGUSR1, jump)
