"""A limit on memory while hostile input is read."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def limit_memory(more_bytes: int) -> Iterator[None]:
    """Allow this process a number of bytes more than it has now; beyond it, allocations fail.

    The kernel counts mapped memory, so the limit also holds for C libraries and short-lived bombs.
    """
    held = int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
