"""Secrets that come from files, such as those that an orchestrator mounts. What goes wrong never shows one.

Nor does it show the file's name: more than one user has put the secret itself there.
"""

from functools import lru_cache
from pathlib import Path

from harvester.errors import UsageError

MAX_FILE_BYTES = 64 * 1024
"""The longest file of a secret that is read: a device, or the wrong file, must not fill the memory."""


def secret_in(file: Path, what: str) -> str:
    """Give the text of a file without blanks around it. Raises ``UsageError``, which says ``what`` it should hold.

    A pipe, such as a shell's ``<(...)``, is read once in the life of the process: nothing comes the second time, and
    whoever waited for it would wait for ever.
    """
    try:
        data = _start_of_pipe(file, file.stat().st_ino) if file.is_fifo() else _start_of(file)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"the file of {what} has more than {MAX_FILE_BYTES} bytes; name the right file")
        return data.decode().strip()
    except OSError as error:
        raise UsageError(f"cannot read the file of {what}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"the file of {what} holds no text") from None


def _start_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_FILE_BYTES + 1)


@lru_cache
def _start_of_pipe(file: Path, inode: int) -> bytes:
    del inode  # it tells pipes apart that have one name after the other
    return _start_of(file)
