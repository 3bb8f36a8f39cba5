"""Tortures the whole system at random, by a seed, and checks the output from outside (``check_output.py``).

``python -m benchmarks.torture [--serve redis|nats|rabbitmq] [--kills 1000] [--seed N] [--store folder|moto]``

It combines faults of the API, a stand-in that goes away, keys that are revoked and rotated, a disk that fills up, a
store that cuts connections, clocks that are wrong and jump, SIGKILL, SIGTERM, and SIGSTOP for longer than a lease
while a successor takes over. With ``--serve`` it tortures the long-lived process, and kills the broker as well. It
prints its seed, and ``--seed`` repeats the same draws; only the kernel's scheduling differs.

``chaos.py`` causes the faults. ``torture_target.py``, ``capture_target.py`` and ``service_target.py`` are the
programs under test. ``storage_targets.py`` holds their parts.
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

from benchmarks.torture.capture_target import OfRuns
from benchmarks.torture.chaos import Torture
from benchmarks.torture.check_output import Wrong
from benchmarks.torture.service_target import OfService
from benchmarks.torture.storage_targets import Folder, Lake
from tests.support.brokers import start_broker_server
from tests.support.object_stores import moto
from tests.support.tcp_proxy import TcpProxy

DISK_BYTES = 256 << 20


async def run_torture(args: argparse.Namespace, disk: Path) -> Torture:
    """Put everything together, and torture."""
    with ExitStack() as stack:
        bucket = stack.enter_context(moto(disk)) if args.store == "moto" else None
        async with TcpProxy(bucket.port if bucket else 0) as proxy:
            place = Lake(bucket, proxy) if bucket else Folder(disk)
            if args.serve:
                kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="broker-")))
                broker_server = start_broker_server(args.serve, kept / "data")
                stack.callback(broker_server.close)
                torture: Torture = OfService(disk, place, broker_server, seed=args.seed, kills=args.kills)
            else:
                torture = OfRuns(disk, place, seed=args.seed, kills=args.kills)
            try:
                await torture.whole(seconds=60 * args.minutes)
            except Wrong as wrong:
                raise Wrong(f"{wrong}\n{dict(torture.done)}") from None
            finally:
                torture.api_away()
                shutil.rmtree(torture.output)
    return torture


def small_disk() -> int:
    """Do it again on a small disk of our own, in name spaces that need no right; gives the exit code."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        own = [sys.executable, "-m", "benchmarks.torture", *sys.argv[1:], "--disk", folder]
        mounted = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs {folder} && exec "$@"'
        unshare = ["unshare", "-Urm", "sh", "-c", mounted, "sh"]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
            print("this kernel gives us no disk of our own: no disk will be full")
            return subprocess.run(own, check=False).returncode
        return subprocess.run([*unshare, *own], check=False).returncode


def main() -> None:
    """Torture once, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=["redis", "nats", "rabbitmq"], help="torture the service, with this broker")
    parser.add_argument("--kills", type=int, default=30, help="the number of kills before the end")
    parser.add_argument("--minutes", type=float, default=math.inf, help="but for no longer than this")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--store", choices=["folder", "moto"], default="folder")
    parser.add_argument("--disk", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.disk is None:
        raise SystemExit(small_disk())
    print(f"seed {args.seed}", flush=True)
    try:
        torture = asyncio.run(run_torture(args, args.disk))
    except Wrong as wrong:
        kept = Path(tempfile.mkdtemp(prefix=f"torture-{args.seed}-"))
        shutil.copytree(args.disk, kept, dirs_exist_ok=True)
        raise SystemExit(f"WRONG: {wrong}\nkept in {kept}; again with --seed {args.seed}") from None
    witness = torture.witness
    print(f"{len(torture.enqueued_pairs)} pairs, none missing, none twice, {witness.responses} responses")
    print(", ".join(f"{count} {what}" for what, count in sorted(torture.done.items())))
    print("captures: " + ", ".join(f"{count} {reading}" for reading, count in sorted(witness.captured.items())))


if __name__ == "__main__":
    main()
