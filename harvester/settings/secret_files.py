"""Reads secrets from files, such as mounted secrets.

No error shows a secret or the file's name: a user may have entered the secret as the name.
"""

from functools import lru_cache
from pathlib import Path

from harvester.errors import UsageError

MAX_FILE_BYTES = 64 * 1024
"""The size limit of a secret file: a device, or the wrong file, must not fill the memory."""


def read_secret(file: Path, what: str) -> str:
    """Return the text of a file without surrounding whitespace. Raises ``UsageError``, which names ``what``."""
    try:
        data = read_start(file, MAX_FILE_BYTES)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"the file of {what} has more than {MAX_FILE_BYTES} bytes; name the right file")
        return data.decode().strip()
    except OSError as error:
        raise UsageError(f"cannot read the file of {what}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"the file of {what} does not contain text") from None


def read_start(file: Path, max_bytes: int) -> bytes:
    """Return the content of a file, up to one byte more than ``max_bytes``. Raises ``OSError``.

    A pipe, such as a shell's ``<(...)``, is read once per process: a second read would block forever.
    """
    return _read_pipe(file, file.stat().st_ino, max_bytes) if file.is_fifo() else _read_file(file, max_bytes)


def _read_file(file: Path, max_bytes: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(max_bytes + 1)


@lru_cache
def _read_pipe(file: Path, inode: int, max_bytes: int) -> bytes:
    del inode  # distinguishes successive pipes with the same name
    return _read_file(file, max_bytes)
