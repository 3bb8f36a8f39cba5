"""A ledger in an SQLite file: its identity, and what happens if it is moved or removed while it is in use.

Unix lets a file be removed, renamed or replaced while it is open. Everything written after that is lost when the
process ends, so it must be noticed.
"""

import secrets
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from harvester.errors import LedgerError, LedgerLost
from harvester.ledger.dialect import TransactionStart
from harvester.ledger.owner_locks import OwnerLock, list_living
from harvester.ledger.sqlite import DIALECT, connect, connect_to_read, describe, read_oldest_schema, save
from harvester.private_files import make_private_folder

log = structlog.get_logger()


class SQLiteFile:
    """A ledger's file. Its lease time is that of the machine, which all processes that use the file share."""

    dialect = DIALECT

    def __init__(self, path: Path) -> None:
        """Follow links. Raises ``LedgerError`` for a file that cannot be used safely."""
        self.location = resolve_ledger(path)
        self.lost: LedgerLost | None = None
        self.describe: Callable[[DBAPIError], str] = describe
        self._files: FileIdentity | None = None

    def connect(self, *, read_only: bool) -> Engine:
        """Open the file, or create it and its folders. Raises ``LedgerError``."""
        return connect_to_read(self.location) if read_only else connect(self.location)

    def begin(self, connection: Connection, *, writes: bool) -> TransactionStart:
        """Read the oldest schema. The transaction needs no id, because no connection can be lost during its commit."""
        del writes
        return (
            TransactionStart()
            if self._files is None
            else TransactionStart(oldest_schema=read_oldest_schema(connection))
        )

    def was_committed(self, connection: Connection, transaction_id: str) -> bool | None:
        """Never called, because no transaction has an id."""
        raise NotImplementedError(connection, transaction_id)

    def stop_waiting(self) -> None:
        """Do nothing: a file has no server."""

    def watch(self, ledger_id: str) -> None:
        """Detect from now on when a file of the ledger is removed or replaced, or no longer supports this version."""
        del ledger_id  # another file has another device or inode
        self._files = FileIdentity(self.location)

    def is_lost(self) -> bool:
        """Return whether a file has another device or inode than when it was opened."""
        return self.lost is not None or (self._files is not None and self._files.find_missing() is not None)

    def raise_if_lost(self, engine: Engine, now: float) -> None:
        """Raise ``LedgerLost`` for a file that was removed or replaced. The first call saves its content beside it."""
        missing = self._files.find_missing() if self._files is not None and self.lost is None else None
        if missing is not None:
            saved = self._rescue(engine, now)
            self.lost = LedgerLost(f"{missing} was removed or replaced while it was in use. {saved}")
            log.error("ledger_lost", reason=str(self.lost))
        if self.lost is not None:
            raise self.lost

    def create_owner(self, name: str) -> OwnerLock:
        """Lock a file beside the ledger, which the kernel releases when this process ends."""
        return OwnerLock(self.location, name)

    def list_living(self, leased: Collection[str]) -> list[str]:
        """List the owners whose process lives, also those without a lease."""
        return list_living(self.location, leased)

    def is_transient(self, error: DBAPIError) -> bool:
        """Return False: SQLite itself waits for other processes."""
        del error
        return False

    def _rescue(self, engine: Engine, now: float) -> str:
        """Copy the content of the open file beside it; returns a sentence with the copy's name and what to do."""
        path, moment = self.location, datetime.fromtimestamp(now, UTC)
        to = path.with_name(f"{path.name}.saved-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")
        connection = engine.raw_connection()
        try:
            make_private_folder(to.parent)
            save(connection.driver_connection, to, what=str(path))  # type: ignore[arg-type] # it is sqlite3's
        except (LedgerError, OSError) as error:
            return f"Its content could not be saved ({error}): restore a backup, or use harvester ledger rebuild"
        finally:
            connection.close()
        return f"Its content was saved: delete {path} and its -wal and -shm files, move {to} to {path}, and start again"


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
        self._files = {name: found for name in names if (found := _get_identity(name)) is not None}

    def find_missing(self) -> Path | None:
        """Return a file that was removed or replaced; None while all are in place."""
        return next((name for name, found in self._files.items() if _get_identity(name) != found), None)


def _get_identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
