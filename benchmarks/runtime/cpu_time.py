"""The CPU time of running processes, from the kernel. Other work on the machine changes it less than elapsed time."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def count_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of all its children, also those that have ended."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _read_seconds(pid) + sum(_read_seconds(int(child)) for child in children)


def _read_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended; 0 if it has ended itself."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(each) for each in fields[11:15]) / _TICKS
