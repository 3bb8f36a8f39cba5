"""The bound on memory, while something hostile is taken in."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_bounded(more_bytes: int) -> Iterator[None]:
    """Let this process have so many more bytes of data than it has now; beyond it, whoever asks fails.

    The kernel counts what is mapped, so it holds for libraries in C too, and for a bomb that is gone in a moment.
    """
    held = int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
