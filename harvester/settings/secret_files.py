"""Reads secrets from files, such as mounted secrets.

No error shows a secret. A user may have entered the secret as the name of the file, so an error shows only what is
clearly a path: it contains a slash, or the file exists.
"""

import errno
import os
import stat
from functools import lru_cache
from pathlib import Path

from harvester.errors import UsageError

MAX_FILE_BYTES = 64 * 1024
"""The size limit of a secret file: a device, or the wrong file, must not fill the memory."""

_NOT_A_FILE = "it is a pipe, a device or a socket, not a file"


def read_secret(file: Path, what: str) -> str:
    """Return the text of a file without surrounding whitespace. Raises ``UsageError``, which names ``what``."""
    try:
        data = read_start(file, MAX_FILE_BYTES)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"the file of {what} has more than {MAX_FILE_BYTES} bytes; name the right file")
        text = data.decode().strip()
    except OSError as error:
        raise UsageError(f"cannot read the file of {what}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"the file of {what} does not contain text") from None
    if not text:
        raise UsageError(f"the file of {what} is empty")
    return text


def name_source(setting: str, file: Path) -> str:
    """Return the setting and its path for an error; no path if it could be a secret: a key, or a URL with a user."""
    path = str(file)
    is_path = "/" in path or os.path.lexists(path)
    return f"{setting}, {path}" if is_path and not any(mark in path for mark in ":@") else setting


def read_start(file: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file, up to one byte more than ``max_bytes``. Raises ``OSError``.

    A shell's ``<(...)``, a pipe without a name, is read once per process: a second read would block forever. A named
    pipe is refused, because to open it may block forever, too.
    """
    is_unnamed_pipe = file.is_fifo() and Path(os.path.realpath(file)).parent == Path("/dev/fd").resolve()
    return _read_pipe(file, file.stat().st_ino, max_bytes) if is_unnamed_pipe else _read_file(file, max_bytes)


def _read_file(file: Path, max_bytes: int) -> bytes:
    with open(file, "rb", opener=_open_without_waiting) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.EINVAL, _NOT_A_FILE)
        return opened.read(max_bytes + 1)


def _open_without_waiting(file: str, flags: int) -> int:
    """Open a file. A named pipe opens at once even without a writer: it may replace a file at any moment."""
    try:
        return os.open(file, flags | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is missing
            raise OSError(errno.EINVAL, _NOT_A_FILE) from None
        raise


@lru_cache
def _read_pipe(file: Path, inode: int, max_bytes: int) -> bytes:
    del inode  # distinguishes successive pipes with the same name
    with file.open("rb") as opened:
        return opened.read(max_bytes + 1)
