"""A folder on a local disk as a sink: a part is complete and durable, or absent.

It writes a temporary file, flushes it, links it to the final name and flushes the folder. The link fails if the name
exists, so nothing is overwritten. A failed flush is not retried on the same file, because the kernel may have dropped
the data that it could not write.
"""

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harvester.causes import find_cause
from harvester.errors import PartConflict, SinkError
from harvester.model import DATASET, Part, is_part
from harvester.private_files import make_private_folder, open_private
from harvester.storage.marker import find_ledger_id, mark_dataset

_STALE_SECONDS = 3600.0


class FolderSink:
    """Creates parts below a local folder. Temporary files are in its ``.harvester/tmp``."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``; nothing is read or written before ``attach``."""
        self.folder = folder
        self.place = str(folder.absolute())
        self._temporary = folder / ".harvester" / "tmp"

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:
        """Mark the dataset as this ledger's (see the protocol)."""
        with _describe_errors(self.folder):
            await asyncio.to_thread(self._prepare_temporary_folder)
            return (await mark_dataset(self, ledger_id, known=known))[1]

    async def find_ledger_id(self) -> str | None:
        """Return the id of the ledger in the marker (see the protocol)."""
        with _describe_errors(self.folder):
            return await find_ledger_id(self)

    async def list_parts(self, folder: str) -> set[str]:
        """List a folder (see the protocol)."""
        try:
            return {f"{folder}/{name}" for name in await asyncio.to_thread(os.listdir, self.folder / folder)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            text = f"cannot list {self.folder / folder}: {error.strerror}; give this user read permission"
            raise SinkError(text, cause=find_cause(error) or "failed") from None

    async def create(self, part: Part) -> None:
        """Create a part (see the protocol)."""
        with _describe_errors(self.folder):
            await asyncio.to_thread(self._create, part.name, part.data)

    async def read_marker(self, name: str) -> bytes | None:
        """Read a marker; None if there is none."""
        return await asyncio.to_thread(self._read, name)

    async def create_marker(self, name: str, data: bytes) -> bytes:
        """Create a marker, or return the one that another process created first."""
        return await asyncio.to_thread(self._create_marker, name, data)

    async def has_parts(self) -> bool:
        """Return whether the dataset has a part."""
        return await asyncio.to_thread(lambda: any(is_part(each.name) for each in self.folder.glob(f"{DATASET}/*/*")))

    def _create_marker(self, name: str, data: bytes) -> bytes:
        with suppress(PartConflict):
            self._create(name, data)
        _flush_folder(self.folder)  # the process that created this folder may not have flushed it
        return self._read(name) or b""

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _prepare_temporary_folder(self) -> None:
        """Create the folder for temporary files, and delete those that a killed process left."""
        _make_folders(self.folder)
        make_private_folder(self._temporary.parent)
        make_private_folder(self._temporary)
        _flush_folder(self.folder)
        stale_before = self._read_disk_time() - _STALE_SECONDS
        for file in self._temporary.iterdir():
            with suppress(FileNotFoundError):  # its process has just deleted it
                if file.lstat().st_mtime < stale_before:
                    file.unlink()

    def _read_disk_time(self) -> float:
        """Touch a file and return its time: a network disk sets file times by its own clock."""
        probe = self._temporary / "now"
        file = open_private(probe)
        try:
            os.utime(file)
        finally:
            os.close(file)
        return probe.stat().st_mtime

    def _create(self, name: str, data: bytes) -> None:
        target = self.folder / name
        _make_folders(target.parent)
        temporary = self._temporary / f"{target.name}.{secrets.token_hex(4)}"
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                _write_all(file, data)
                os.fsync(file)
            finally:
                os.close(file)
            try:
                os.link(temporary, target)
            except FileExistsError:
                _verify_equal(target, data)
            _flush_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _describe_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into a sentence that says what to do."""
    advice = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EACCES: "give this user write permission",
        errno.EPERM: "give this user write permission, on a file system that supports hard links",
        errno.EROFS: "mount it writable",
        errno.EIO: "check the disk",
        errno.EMFILE: "allow it more open files (ulimit -n)",
    }
    try:
        yield
    except OSError as error:
        next_step = advice.get(error.errno or 0, "repair it")
        raise SinkError(
            f"cannot write to {folder}: {error.strerror or error}; {next_step} and run the same command again. "
            "No sealed batch is lost",
            cause=find_cause(error) or "failed",
        ) from None


def _write_all(file: int, data: bytes) -> None:
    """Write every byte: on a nearly full disk, a write can be short without an error."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _make_folders(folder: Path) -> None:
    """Create a folder and its missing parents, each flushed in its parent before it is used."""
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


def _verify_equal(target: Path, data: bytes) -> None:
    """Accept an existing file with equal bytes, and flush it: its writer may have died before the flush."""
    file = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as existing:
        if hashlib.sha256(existing.read()).digest() != hashlib.sha256(data).digest():
            raise PartConflict(
                f"{target} exists with different bytes; it was not changed. Move it away if harvester did not write it"
            )
        os.fsync(existing.fileno())
