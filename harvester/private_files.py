"""Creates files and folders that only this user can access: the ledger, its locks, rejects and backups.

They have mode 0600 or 0700 for any umask, and are never created through a symbolic link. Existing folders keep their
mode. Parts are not created here: they are the user's data, which others may read, and follow the umask.
"""

import os
from pathlib import Path
from typing import BinaryIO

_FILE_MODE, _FOLDER_MODE = 0o600, 0o700
_MAKING = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def make_private_folder(folder: Path) -> None:
    """Create a folder that only this user can access, and missing parents as usual. Raises ``OSError``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def make_private_file(path: Path) -> None:
    """Create an empty file. Raises ``FileExistsError`` if the name is taken, also by a link, else ``OSError``."""
    os.close(os.open(path, os.O_WRONLY | os.O_EXCL | _MAKING, _FILE_MODE))


def open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file, created if missing; returns its descriptor. Raises ``OSError``, also for a link."""
    return os.open(path, flags | _MAKING, _FILE_MODE)


def append_private(path: Path) -> BinaryIO:
    """Open a file for appending, created if missing. Raises ``OSError``, also for a link."""
    return os.fdopen(open_private(path, os.O_WRONLY | os.O_APPEND), "ab")
