"""Files and folders that are for this user alone: the ledger, its locks, rejects and backups hold what others sent.

What is made here is 0600 or 0700 whatever the umask says, and never made through a link that somebody put in its place.
Folders that exist keep their mode. Parts are not made here: they are the user's data, for others to read, and follow
the umask.
"""

import os
from pathlib import Path
from typing import BinaryIO

_FILE_MODE, _FOLDER_MODE = 0o600, 0o700
_MAKING = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def make_private_folder(folder: Path) -> None:
    """Make a folder for this user alone, and missing ones above it as usual. Raises ``OSError``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def make_private_file(path: Path) -> None:
    """Make an empty file. Raises ``FileExistsError`` where the name is taken, by a link too, else ``OSError``."""
    os.close(os.open(path, os.O_WRONLY | os.O_EXCL | _MAKING, _FILE_MODE))


def open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file, made where it is missing; gives its descriptor. Raises ``OSError``, also for a link."""
    return os.open(path, flags | _MAKING, _FILE_MODE)


def append_private(path: Path) -> BinaryIO:
    """Open a file to append to it, made where it is missing. Raises ``OSError``, also for a link."""
    return os.fdopen(open_private(path, os.O_WRONLY | os.O_APPEND), "ab")
