"""Locks that show which owners of a ledger in a file are alive.

An owner holds an advisory lock on a file beside the ledger while its process lives. The kernel releases it at any
death, including ``kill -9``, so a successor does not have to wait until a lease ends.
"""

import fcntl
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from harvester.errors import LedgerError
from harvester.private_files import make_private_folder, open_private


def _get_lock_folder(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".owners")


def list_living(ledger: Path, leased: Collection[str]) -> list[str]:
    """List the owners whose process lives: those that hold their lock, and those ``leased`` whose lock is not known."""
    folder = _get_lock_folder(ledger)
    try:
        locks = [path.name for path in folder.iterdir() if path.is_file()] if folder.exists() else []
    except OSError as error:
        raise LedgerError(f"cannot list the locks in {folder}: {error.strerror}; give this user access") from None
    return sorted(each for each in {*leased, *locks} if not _remove_if_dead(folder / each))


def _remove_if_dead(path: Path) -> bool:
    """Delete the lock of another owner if its process has ended; returns whether it has.

    Anything else at its place, such as a folder, a link or a file of another user, stays and shows no death.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(file)


class OwnerLock:
    """The lock that shows that this process is alive, and the state of other owners' locks."""

    def __init__(self, ledger: Path, owner: str) -> None:
        """Take the lock of ``owner``. Raises ``LedgerError`` if the folder prevents it."""
        self.name = owner
        self._folder = _get_lock_folder(ledger)
        self._mine = self._folder / owner
        try:
            make_private_folder(self._folder)
            self._file = self._lock_own_file()
        except OSError as error:
            raise LedgerError(f"cannot lock {self._mine}: {error.strerror}; give this user write permission") from None

    def _lock_own_file(self) -> int:
        """Open and lock our file; retry if another process deleted it in between as that of a dead owner."""
        while True:
            file = open_private(self._mine)
            fcntl.flock(file, fcntl.LOCK_EX)
            if self._mine.exists() and self._mine.stat().st_ino == os.fstat(file).st_ino:
                return file
            os.close(file)

    def list_dead(self, owners: Iterable[str]) -> list[str]:
        """Return the owners whose process has ended, and remove their locks."""
        dead = [each for each in owners if _remove_if_dead(self._folder / each)]
        self._remove_dead_locks()
        return dead

    def _remove_dead_locks(self) -> None:
        for path in self._folder.iterdir():
            if path != self._mine:
                _remove_if_dead(path)

    def release(self) -> None:
        """Release the lock and delete its file."""
        self._mine.unlink(missing_ok=True)
        os.close(self._file)
