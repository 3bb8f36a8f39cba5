"""The secrets of the tests are canaries: none may be found where the harvester speaks or writes.

Every test is searched when it has ended: all that was said by this process and by the ``harvester`` processes it
started, and every file below its ``tmp_path``, packed or not: logs, rejects, ledgers, parts. Files that hold a key on
purpose are known by their names.
"""

import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path

import zstandard

from tests.support.servers import AZURITE_KEY, SECRET_KEY

KEY = "canary-key-0123456789"
CANARIES = tuple(secret[:14].encode() for secret in (KEY, SECRET_KEY, AZURITE_KEY))
"""The beginnings: half a key is half a leak."""

MEANT_FOR_KEYS = ("key", "*.key", "*.toml", "account.json")

said: list[bytes] = []
"""What processes said since the last search."""


class Heard(subprocess.Popen):
    """A process whose words are searched when the test has ended."""

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002 - Popen's name
        """Read all it says, and keep it."""
        out, err = super().communicate(input, timeout)
        said.extend((out or b"", err or b""))
        return out, err


def leaks(folder: Path | None, more: Iterable[str] = ()) -> list[str]:
    """Name the places where a canary is found; forgets what was said."""
    heard = [*said, *(text.encode(errors="replace") for text in more)]
    said.clear()
    found = [repr(text[:500]) for text in heard if _holds_one(text)]
    files = sorted(folder.rglob("*")) if folder is not None else []
    for path in files:
        meant = any(path.match(pattern) for pattern in MEANT_FOR_KEYS)
        if path.is_file() and not path.is_symlink() and not meant and _holds_one(_unpacked(path)):
            found.append(str(path))
    return found


def _holds_one(data: bytes) -> bool:
    return any(canary in data for canary in CANARIES)


def _unpacked(path: Path) -> bytes:
    """Give what a reader of the file would see; a damaged file counts as it lies."""
    data = path.read_bytes()
    try:
        if path.suffix == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        if path.suffix == ".gz":
            return zlib.decompressobj(31).decompress(data)
    except (zstandard.ZstdError, zlib.error):
        pass
    return data
