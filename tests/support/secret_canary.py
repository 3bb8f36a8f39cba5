"""The secrets of the tests are canaries: none may appear in any output or file of harvester.

After each test, the output of this process and of its ``harvester`` processes is searched, and every file below its
``tmp_path``, compressed or not: logs, rejects, ledgers, parts. Files that contain a key on purpose are known by name.
"""

import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path

import zstandard

from tests.support.object_stores import AZURITE_KEY, SECRET_KEY

KEY = "canary-key-0123456789"
PROXY_PASSWORD = "canary-proxy-password"
DATABASE_PASSWORD = "canary-database-password"
CANARIES = tuple(secret[:14].encode() for secret in (KEY, PROXY_PASSWORD, DATABASE_PASSWORD, SECRET_KEY, AZURITE_KEY))
"""The first 14 bytes of each secret, because a partial key counts as a leak."""

KEY_FILES = ("run/secrets/braze/*", "ledger_url", "key", "*.key", "keys/*", "keys/*/*", "*.toml", "account.json")

captured_output: list[bytes] = []
"""The output of processes since the last search."""


class RecordedProcess(subprocess.Popen):
    """A process whose output is searched for secrets when the test has ended."""

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002 - Popen's name
        """Wait for the process to end, and record its output."""
        out, err = super().communicate(input, timeout)
        captured_output.extend((out or b"", err or b""))
        return out, err


def find_leaks(folder: Path | None, more: Iterable[str] = ()) -> list[str]:
    """Return the places where a secret is found, and forget the output."""
    texts = [*captured_output, *(text.encode(errors="replace") for text in more)]
    captured_output.clear()
    found = [repr(text[:500]) for text in texts if _contains_secret(text)]
    files = sorted(folder.rglob("*")) if folder is not None else []
    for path in files:
        holds_key = any(path.match(pattern) for pattern in KEY_FILES)
        if path.is_file() and not path.is_symlink() and not holds_key and _contains_secret(_decompress(path)):
            found.append(str(path))
    return found


def _contains_secret(data: bytes) -> bool:
    return any(canary in data for canary in CANARIES)


def _decompress(path: Path) -> bytes:
    """Return what a reader of the file would see; a damaged file counts as it is."""
    data = path.read_bytes()
    try:
        if path.suffix == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        if path.suffix == ".gz":
            return zlib.decompressobj(31).decompress(data)
    except (zstandard.ZstdError, zlib.error):
        pass
    return data
