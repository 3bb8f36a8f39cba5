"""Creates the temporary folder to which files of a bucket are copied while they are read."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harvester.errors import UsageError

_ADVICE = "set TMPDIR to a writable folder"


@contextmanager
def create_temporary_folder() -> Iterator[Path]:
    """Create a folder that is deleted at the end. Raises ``UsageError`` if this is not possible."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="harvester-", ignore_cleanup_errors=True)
    except FileNotFoundError:
        raise UsageError(
            f"there is no folder for temporary files, so files of a bucket cannot be copied; {_ADVICE}"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write temporary files: {error.strerror}; {_ADVICE}") from None
    with folder as name:
        yield Path(name)


def check_temporary_folder() -> str | None:
    """Return why no temporary folder can be created, or None if one can."""
    try:
        with create_temporary_folder():
            return None
    except UsageError as error:
        return str(error)
