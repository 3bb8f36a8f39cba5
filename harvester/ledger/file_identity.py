"""Whether the files that SQLite has open are still those that bear the ledger's name.

Unix lets a file be removed, renamed or replaced while it is open. What is written from then on is gone with the
process, so it must be noticed.
"""

from pathlib import Path

from harvester.errors import LedgerError


def resolve_ledger(path: Path) -> Path:
    """Give the one name under which a ledger's locks and SQLite's own files lie, whatever link leads to it.

    Raises ``LedgerError`` for a file that has several names: under each, SQLite would keep a log of its own.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise LedgerError(f"{path} is a link that leads nowhere; remove it, or give --state the ledger's own name")
        if path.is_file() and path.stat().st_nlink > 1:
            raise LedgerError(
                f"the ledger {path} has more than one name (hard links), which SQLite would take for several ledgers; "
                "keep one name, and copy a ledger with harvester backup"
            )
        return path.resolve()
    except OSError as error:
        raise LedgerError(f"cannot look for the ledger {path}: {error.strerror}; let this user in") from None


class FileIdentity:
    """Device and inode of a ledger's files, as they were when it was opened."""

    def __init__(self, path: Path) -> None:
        """Take the files as they are now: the database, its write-ahead log, and the memory that processes share."""
        names = (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"))
        self._files = {name: found for name in names if (found := _identity(name)) is not None}

    def missing(self) -> Path | None:
        """Name a file that is no longer where it was, or is another; None while all are there."""
        return next((name for name, found in self._files.items() if _identity(name) != found), None)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
