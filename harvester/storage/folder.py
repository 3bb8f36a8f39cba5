"""A folder on a local disk as a sink: a part is there whole and durable, or not at all.

Write beside, flush to the disk, link under the final name, flush the folder: the link fails where the name is
taken, so nothing is ever overwritten. A failed flush is never tried again on the same file, since the kernel
may have dropped the data it could not write.
"""

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harvester.errors import PartConflict, SinkError
from harvester.health import cause_of
from harvester.model import DATASET, Part, is_part
from harvester.private_files import make_private_folder, open_private
from harvester.storage.marker import find_owner, mark

_STALE_SECONDS = 3600.0


class FolderSink:
    """Parts below a local folder; files in the making lie in its ``.harvester/tmp``."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; nothing is touched before ``attach``."""
        self.folder = folder
        self.place = str(folder.absolute())
        self._making = folder / ".harvester" / "tmp"

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Mark the dataset as this ledger's (see the protocol)."""
        with _translated(self.folder):
            await asyncio.to_thread(self._sweep)
            return (await mark(self, ledger_id, known=known))[1]

    async def owner(self) -> str | None:
        """Name the ledger whose mark is there (see the protocol)."""
        with _translated(self.folder):
            return await find_owner(self)

    async def names(self, folder: str) -> set[str]:
        """List a folder (see the protocol)."""
        try:
            return {f"{folder}/{name}" for name in await asyncio.to_thread(os.listdir, self.folder / folder)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            text = f"cannot list {self.folder / folder}: {error.strerror}; let this user read it"
            raise SinkError(text, cause=cause_of(error) or "failed") from None

    async def create(self, part: Part) -> None:
        """Create a part (see the protocol)."""
        with _translated(self.folder):
            await asyncio.to_thread(self._create, part.name, part.data)

    async def read_marker(self, name: str) -> bytes | None:
        """Read a marker, or find that there is none."""
        return await asyncio.to_thread(self._read, name)

    async def create_marker(self, name: str, data: bytes) -> bytes:
        """Create a marker; another process may be quicker."""
        return await asyncio.to_thread(self._create_marker, name, data)

    async def has_parts(self) -> bool:
        """Tell whether any part is in the dataset."""
        return await asyncio.to_thread(lambda: any(is_part(each.name) for each in self.folder.glob(f"{DATASET}/*/*")))

    def _create_marker(self, name: str, data: bytes) -> bytes:
        with suppress(PartConflict):
            self._create(name, data)
        _flush_folder(self.folder)  # who made the folder of the marker and the ledger need not have made it durable
        return self._read(name) or b""

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _sweep(self) -> None:
        """Make the folder for files in the making, and clear what a killed process left in it."""
        _make_folders(self.folder)
        make_private_folder(self._making.parent)
        make_private_folder(self._making)
        _flush_folder(self.folder)
        stale_before = self._touched().stat().st_mtime - _STALE_SECONDS
        for left in self._making.iterdir():
            with suppress(FileNotFoundError):  # whoever was making it has just finished
                if left.lstat().st_mtime < stale_before:
                    left.unlink()

    def _touched(self) -> Path:
        """Give a file made just now: the disk's own clock is the one that dated the others."""
        probe = self._making / "now"
        file = open_private(probe)
        try:
            os.utime(file)
        finally:
            os.close(file)
        return probe

    def _create(self, name: str, data: bytes) -> None:
        target = self.folder / name
        _make_folders(target.parent)
        making = self._making / f"{target.name}.{secrets.token_hex(4)}"
        try:
            file = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                _write_all(file, data)
                os.fsync(file)
            finally:
                os.close(file)
            try:
                os.link(making, target)
            except FileExistsError:
                _must_equal(target, data)
            _flush_folder(target.parent)
        finally:
            making.unlink(missing_ok=True)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turn an operating system's error into a sentence that tells what to do."""
    advice = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EACCES: "let this user write there",
        errno.EPERM: "let this user write there, on a file system that has hard links",
        errno.EROFS: "mount it writable",
        errno.EIO: "check the disk",
        errno.EMFILE: "allow it more open files (ulimit -n)",
    }
    try:
        yield
    except OSError as error:
        what = advice.get(error.errno or 0, "mend it")
        raise SinkError(
            f"cannot write to {folder}: {error.strerror or error}; {what} and run the same command again, "
            "nothing sealed is lost",
            cause=cause_of(error) or "failed",
        ) from None


def _write_all(file: int, data: bytes) -> None:
    """Write every byte: a nearly full disk takes fewer than asked, without an error."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _make_folders(folder: Path) -> None:
    """Make a folder and the missing ones above it, each durable in its parent before it is used."""
    missing = [folder, *folder.parents]
    for each in reversed([each for each in missing if not each.exists()]):
        each.mkdir(exist_ok=True)
        _flush_folder(each.parent)


def _flush_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _must_equal(target: Path, data: bytes) -> None:
    """Accept a taken name if it holds the same bytes, and make those durable: their writer may have died before."""
    file = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as there:
        if hashlib.sha256(there.read()).digest() != hashlib.sha256(data).digest():
            raise PartConflict(
                f"{target} exists with other bytes; it was left as it is, move it away if it is not ours"
            )
        os.fsync(there.fileno())
