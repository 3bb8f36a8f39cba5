"""Secrets that come from files, such as those that an orchestrator mounts. What goes wrong never shows one.

Nor does it show the file's name: more than one user has put the secret itself there.
"""

from pathlib import Path

from harvester.errors import UsageError


def secret_in(file: Path, what: str) -> str:
    """Give the text of a file without blanks around it. Raises ``UsageError``, which says ``what`` it should hold."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"cannot read the file of {what}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"the file of {what} holds no text") from None
