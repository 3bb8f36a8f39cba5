"""Checks whether the files that SQLite has open still have the ledger's name.

Unix lets a file be removed, renamed or replaced while it is open. Everything written after that is lost when the
process ends, so it must be noticed.
"""

from pathlib import Path

from harvester.errors import LedgerError


def resolve_ledger(path: Path) -> Path:
    """Return the real path of a ledger, beside which its locks and SQLite's own files are; symbolic links are followed.

    Raises ``LedgerError`` for a file with hard links: SQLite would keep a separate log for each name.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise LedgerError(
                f"{path} is a link to a missing file; remove it, or set --state to the path of the ledger"
            )
        if path.is_file() and path.stat().st_nlink > 1:
            raise LedgerError(
                f"the ledger {path} has several names (hard links), and SQLite would treat each as a separate ledger; "
                "keep one name; to copy a ledger, use harvester ledger backup"
            )
        return path.resolve()
    except OSError as error:
        raise LedgerError(f"cannot access the ledger {path}: {error.strerror}; give this user access") from None


class FileIdentity:
    """Device and inode of a ledger's files at the time when it was opened."""

    def __init__(self, path: Path) -> None:
        """Record the current files: the database, its write-ahead log and its shared memory."""
        names = (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"))
        self._files = {name: found for name in names if (found := _identity(name)) is not None}

    def missing(self) -> Path | None:
        """Return a file that was removed or replaced; None while all are in place."""
        return next((name for name, found in self._files.items() if _identity(name) != found), None)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
