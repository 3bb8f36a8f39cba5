"""Files of this machine that are no plain files: what may be read of pipes, devices and sockets.

A pipe gives what it holds once, and makes whoever opens it wait for a writer. A device may never end.
"""

import errno
import stat
from pathlib import Path


def open_once(path: Path, *, pipe: bool = False) -> None:
    """Raise ``OSError`` unless a file can be read; a ``pipe``, where one is of use, is not opened to find out."""
    if not (pipe and path.is_fifo()):
        check_plain(path)
        path.open("rb").close()


def check_plain(path: Path) -> None:
    """Raise ``OSError`` for a pipe, a device or a socket."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file", str(path))
