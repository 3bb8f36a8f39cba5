"""Temporary files: where objects of stores are copied to while they are read."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harvester.errors import UsageError

_ADVICE = "set TMPDIR to a folder that can be written to"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is removed at the end. Raises ``UsageError`` where none can be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="harvester-", ignore_cleanup_errors=True)
    except FileNotFoundError:
        raise UsageError(f"there is no folder for temporary files, which files of a bucket need; {_ADVICE}") from None
    except OSError as error:
        raise UsageError(f"no temporary file can be written: {error.strerror}; {_ADVICE}") from None
    with folder as name:
        yield Path(name)


def temporary_problem() -> str | None:
    """Say why files of a bucket cannot be read here, None where they can."""
    try:
        with temporary_folder():
            return None
    except UsageError as error:
        return str(error)
