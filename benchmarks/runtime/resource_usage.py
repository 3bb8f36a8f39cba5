"""Runs one command and prints what it used: seconds, CPU seconds, peak memory in MiB, and its exit status.

It is a small process of its own, because the kernel counts a child's peak memory from what its parent held at the
start: every small program would look large if a large benchmark started it. ``python resource_usage.py SECONDS
COMMAND...`` kills the command after that many seconds.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time


def main(seconds: float, command: list[str]) -> None:
    """Run the command, and print its usage."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    too_long = threading.Timer(seconds, os.kill, (process.pid, signal.SIGKILL))
    too_long.start()
    _, status, usage = os.wait4(process.pid, 0)
    too_long.cancel()
    took = time.perf_counter() - started
    ended = os.waitstatus_to_exitcode(status)
    print(json.dumps([took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, ended]))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
