"""Runs one command and prints its resource usage: seconds, CPU seconds, peak memory in MiB, and exit status.

It is a small separate process, because a child's peak memory includes the memory of its parent at the fork. If the
large benchmark process started a small program, the program would seem large. ``python resource_usage.py SECONDS
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
    """Run the command, and print its resource usage as JSON."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    timeout = threading.Timer(seconds, os.kill, (process.pid, signal.SIGKILL))
    timeout.start()
    _, status, usage = os.wait4(process.pid, 0)
    timeout.cancel()
    elapsed_seconds = time.perf_counter() - started
    exit_code = os.waitstatus_to_exitcode(status)
    print(json.dumps([elapsed_seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, exit_code]))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
