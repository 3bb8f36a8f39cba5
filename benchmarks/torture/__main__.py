"""Injects random faults into the whole system, and checks its output from outside (``check_output.py``).

``python -m benchmarks.torture [--serve redis|nats|rabbitmq [--workspaces 50]] [--kills 1000] [--seed N]
[--store folder|moto]``

``python -m benchmarks.torture --replicas 4 [--serve rabbitmq] [--workspaces 20] [--pairs 20000] [--kills 1000] ...``

The faults: an API that fails or restarts, keys that are revoked and rotated, a full disk, a store that drops
connections, wrong clocks, SIGKILL, SIGTERM, and SIGSTOP for longer than a lease while a second process takes over.
With ``--serve``, the program under test is ``harvester serve``, and its broker is killed too. With ``--replicas``,
several of them share a PostgreSQL ledger, and its server is killed too. The command prints its seed. ``--seed`` repeats
the same faults; only the scheduling of the operating system differs.

``chaos.py`` injects the faults. ``torture_target.py``, ``capture_target.py`` and ``service_target.py`` start the
programs under test; ``workspaces_target.py`` serves many workspaces, and ``replicas_target.py`` runs several services.
``storage_targets.py`` contains the places for their parts.
"""

import argparse
import asyncio
import math
import random
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.torture.capture_target import CaptureTarget
from benchmarks.torture.chaos import Torture
from benchmarks.torture.check_output import CheckFailed
from benchmarks.torture.replicas_target import ReplicasTarget
from benchmarks.torture.service_target import ServiceTarget
from benchmarks.torture.storage_targets import BucketPlace, FolderPlace
from benchmarks.torture.workspaces_target import WorkspacesTarget
from tests.support.brokers import BrokerServer, start_broker_server
from tests.support.object_stores import moto
from tests.support.postgresql import PostgreSQL
from tests.support.tcp_proxy import TcpProxy

DISK_BYTES = 256 << 20
PAIRS_OF_KILL = 20
"""With replicas, as many pairs arrive for each kill."""


async def run_torture(args: argparse.Namespace, disk: Path) -> Torture:
    """Start the servers, and run the test. Raises ``CheckFailed``."""
    with ExitStack() as stack:
        bucket = stack.enter_context(moto(disk)) if args.store == "moto" else None
        async with TcpProxy(bucket.port if bucket else 0) as proxy:
            place = BucketPlace(bucket, proxy) if bucket else FolderPlace(disk)
            if args.serve:
                broker_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="broker-")))
                broker_server = start_broker_server(args.serve, broker_folder / "data")
                stack.callback(broker_server.close)
                torture = create_services(args, disk, place, broker_server, stack)
            else:
                torture: Torture = CaptureTarget(disk, place, seed=args.seed, kills=args.kills)
            try:
                await torture.run(seconds=60 * args.minutes)
            except CheckFailed as error:
                shutil.copytree(torture.output, disk / "output")
                raise CheckFailed(f"{error}\n{dict(torture.counts)}") from None
            finally:
                torture.stop_api()
                shutil.rmtree(torture.output)
    return torture


def create_services(
    args: argparse.Namespace, disk: Path, place: FolderPlace | BucketPlace, broker_server: BrokerServer,
    stack: ExitStack,
) -> Torture:  # fmt: skip
    """Create the target for ``--serve``; with replicas, start their database."""
    if not args.replicas:
        target = WorkspacesTarget if args.workspaces > 1 else ServiceTarget
        return target(disk, place, broker_server, seed=args.seed, kills=args.kills)
    database = PostgreSQL({})
    stack.callback(database.close)
    return ReplicasTarget(
        disk, place, broker_server, database, seed=args.seed, kills=args.kills, replicas=args.replicas,
        workspaces=args.workspaces, pairs=args.pairs or PAIRS_OF_KILL * args.kills,
    )  # fmt: skip


def run_on_small_disk(*, replicas: bool) -> int:
    """Start this command again on a small disk in its own mount namespace, without root. Returns the exit code.

    With replicas, the disk is an ordinary one: their data is elsewhere, and PostgreSQL needs another user than root.
    """
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        command = [sys.executable, "-m", "benchmarks.torture", *sys.argv[1:], "--disk", folder]
        if replicas:
            return subprocess.run(command, check=False).returncode
        mounted = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs {folder} && exec "$@"'
        unshare = ["unshare", "-Urm", "sh", "-c", mounted, "sh"]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
            print("cannot mount a small disk: this run does not test a full disk")
            return subprocess.run(command, check=False).returncode
        return subprocess.run([*unshare, *command], check=False).returncode


def main() -> None:
    """Run the test once, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--serve",
        choices=["redis", "nats", "rabbitmq"],
        help="test the service with this broker, instead of harvester run",
    )
    parser.add_argument(
        "--workspaces", type=int, default=1,
        help="with --serve: 50 workspaces of mixed health, which are added, removed and repaired meanwhile; "
        "with --replicas: any number of workspaces with their own quota",
    )  # fmt: skip
    parser.add_argument("--replicas", type=int, default=0, help="with --serve: services that share a PostgreSQL ledger")
    parser.add_argument("--pairs", type=int, help="with --replicas: the pairs that arrive [default: 20 for each kill]")
    parser.add_argument("--kills", type=int, default=30, help="end after this number of kills")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after this time, even with fewer kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--store", choices=["folder", "moto"], default="folder")
    parser.add_argument("--disk", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.workspaces not in (1, WorkspacesTarget.workspaces) and not args.replicas:
        parser.error(f"without --replicas, --workspaces is 1 or {WorkspacesTarget.workspaces}")
    if args.replicas and not args.serve:
        parser.error("--replicas needs --serve")
    if args.disk is None:
        raise SystemExit(run_on_small_disk(replicas=args.replicas > 0))
    print(f"seed {args.seed}", flush=True)
    try:
        torture = asyncio.run(run_torture(args, args.disk))
    except CheckFailed as error:
        kept = Path(tempfile.mkdtemp(prefix=f"torture-{args.seed}-"))
        shutil.copytree(args.disk, kept, dirs_exist_ok=True)
        raise SystemExit(f"FAIL: {error}\nThe files are in {kept}. To repeat: --seed {args.seed}") from None
    checker = torture.checker
    print(
        f"{len(torture.enqueued_pairs)} pairs: none is missing, none was written twice; {checker.responses} responses"
    )
    print(", ".join(f"{count} {event}" for event, count in sorted(torture.counts.items())))
    print("captures: " + ", ".join(f"{count} {reading}" for reading, count in sorted(checker.captured.items())))
    for name, figure in torture.figures.items():
        print(f"lowest {name}: {figure:.0f}")


if __name__ == "__main__":
    main()
