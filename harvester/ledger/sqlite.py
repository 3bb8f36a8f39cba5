"""The default database: one SQLite file.

Writing transactions begin immediately and are synchronous, so a commit that returned is durable.
"""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, func
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from harvester.errors import LedgerError
from harvester.ledger.dialect import READ_ONLY, Dialect
from harvester.ledger.sqlite_counts import SUMMARIZE_COUNTS, count_statements
from harvester.private_files import make_private_file, make_private_folder

_NETWORK_FILE_SYSTEMS = re.compile(r"nfs|cifs|smb|9p|afs|ceph|gluster|lustre|fuse\.(sshfs|s3fs|rclone|gcsfuse|goofys)")
_COPY_HINT = "free space, or choose another file"

_WAIT_SECONDS = 120.0
"""How long to wait for another process's transaction. A long list is enqueued in short transactions."""

DIALECT = Dialect(
    single_writer=True,
    insert=insert,
    json_elements=func.json_each,
    json_row=func.json_array,
    json_rows=func.json_group_array,
    analyze_pairs=lambda _: None,  # it has fixed plans
    continue_ids=lambda _: None,  # an id is the highest one plus one
    json_value=func.json,
    # SQLite's JSON keeps 15 digits of a float, but only 17 digits represent every float exactly.
    exact_float=lambda column: func.printf("%!.17g", column),
    whole="",
    count_statements=count_statements,
    summarize_counts=SUMMARIZE_COUNTS,
    lock_schema=(),
    lock_about="",
    lift_timeout=lambda _: None,
    after_create=(),
)

_MOUNTS = Path("/proc/self/mounts")


def connect(path: Path) -> Engine:
    """Open the file for one thread at a time; creates it and its folders. Raises ``LedgerError``."""
    _check_volume(path)
    try:
        make_private_folder(path.parent)
    except OSError as error:
        raise LedgerError(
            f"cannot create the ledger's folder {path.parent}: {error.strerror}; choose another --state"
        ) from None
    kind = _find_file_system(path.parent.resolve())
    if _NETWORK_FILE_SYSTEMS.match(kind):
        raise LedgerError(
            f"the ledger {path} would be on a network file system ({kind}), whose locks are unreliable; "
            "name a file on a local disk with --state"
        )
    try:
        # SQLite would create it with the mode of the umask. Its other files get the mode of this file.
        make_private_file(path)
    except FileExistsError:
        pass
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be used: {error.strerror}; choose another --state, or give this user "
            "write permission"
        ) from None
    engine = create_engine(
        URL.create("sqlite", database=str(path.absolute())),  # in a text, a ? or # in the path would end the path
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": _WAIT_SECONDS},
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "connect", lambda connection, _record: _spill_into(connection, path.parent))
    event.listen(engine, "begin", _begin)
    return engine


def connect_to_read(path: Path) -> Engine:
    """Open an existing file read-only at the first use, for one thread at a time.

    In WAL mode, readers and writers do not block each other. The connection never writes, not even when it is closed.
    Raises ``LedgerError`` if the volume is read-only: readers share memory through a file beside the ledger.
    """
    _check_volume(path)
    target = f"file:{quote(str(path.absolute()))}?mode=ro"
    engine = create_engine(
        "sqlite://",
        poolclass=StaticPool,
        creator=lambda: sqlite3.connect(target, uri=True, check_same_thread=False, timeout=_WAIT_SECONDS),
    ).execution_options(**READ_ONLY)
    event.listen(engine, "connect", _disable_driver_transactions)
    event.listen(engine, "connect", lambda connection, _record: _spill_into(connection, path.parent))
    event.listen(engine, "begin", _begin)
    return engine


def _check_volume(path: Path) -> None:
    try:
        read_only = os.statvfs(path.parent).f_flag & os.ST_RDONLY
    except OSError:
        return  # the folder does not exist yet
    if read_only:
        raise LedgerError(
            f"the ledger {path} is on a read-only volume, where SQLite cannot even read it safely; "
            "copy its folder to another volume, and name the copy with --state"
        )


def _disable_driver_transactions(connection: Any, _record: object = None) -> None:
    connection.isolation_level = None  # the driver would begin a transaction too late, and not as an immediate one


def _set_up(connection: Any, _record: object) -> None:
    _disable_driver_transactions(connection)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "journal_size_limit = 67108864"):
        connection.execute(f"PRAGMA {pragma}")


def _spill_into(connection: Any, folder: Path) -> None:
    """Store temporary files beside the ledger: the default folder may be read-only, or in memory.

    SQLite calls this pragma deprecated and keeps it; the alternative is an environment variable.
    """
    connection.execute("PRAGMA temp_store_directory = '{}'".format(str(folder.resolve()).replace("'", "''")))


def _begin(connection: Connection) -> None:
    read_only = READ_ONLY.items() <= connection.get_execution_options().items()
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def read_oldest_schema(connection: Connection) -> int:
    """Return the oldest schema whose code can use the ledger. It costs a tenth of a statement through SQLAlchemy."""
    statement = "SELECT oldest_schema FROM about"
    try:
        oldest: int = connection.connection.driver_connection.execute(statement).fetchone()[0]  # type: ignore[union-attr] # it is open
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error) from None
    return oldest


def _find_file_system(folder: Path) -> str:
    """Return the kind of file system of a folder; empty if unknown."""
    try:
        mounts = [line.split()[1:3] for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    holding = [(point, kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]))[1] if holding else ""


def describe(error: DBAPIError) -> str:
    """Describe a database error, and what to do if another process is the cause."""
    if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return f"another process has locked it for {_WAIT_SECONDS / 60:.0f} minutes; find that process and end it"
    return str(error.orig)


def back_up(path: Path, to: Path) -> None:
    """Copy a ledger into a new, consistent file, even while others write to it. Raises ``LedgerError``."""
    with closing(sqlite3.connect(path.absolute())) as source:
        save(source, to, what=str(path))


def save(source: sqlite3.Connection, to: Path, *, what: str) -> None:
    """Write the content that a connection sees to a new file. Raises ``LedgerError``, and leaves no partial file."""
    try:
        make_private_file(to)
        with closing(sqlite3.connect(to.absolute())) as target:
            source.backup(target)
            if target.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("the copy is damaged")
    except OSError as error:
        raise LedgerError(f"cannot copy the ledger {what} to {to}: {error.strerror}; {_COPY_HINT}") from None
    except sqlite3.Error as error:
        to.unlink(missing_ok=True)
        raise LedgerError(f"cannot copy the ledger {what} to {to}: {error}; {_COPY_HINT}") from None
