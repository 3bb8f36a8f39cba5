"""Refuses pipes, devices and sockets in place of files.

A pipe can be read only once and blocks its reader until there is a writer. A device may never end.
"""

import errno
import stat
from pathlib import Path


def check_readable(path: Path, *, allow_pipe: bool = False) -> None:
    """Raise ``OSError`` unless a file can be opened for reading. An allowed pipe is not opened."""
    if not (allow_pipe and path.is_fifo()):
        check_regular_file(path)
        path.open("rb").close()


def check_regular_file(path: Path) -> None:
    """Raise ``OSError`` for a pipe, a device or a socket."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file", str(path))
