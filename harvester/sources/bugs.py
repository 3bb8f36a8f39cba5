"""Errors that nobody expects: where they come from, and nothing that they say."""

from pathlib import Path


def bug_of(error: BaseException) -> tuple[str, str]:
    """Give an error's type, and the last place of our own that it passed, such as ``files.py:12``."""
    at, step = "an unknown place", error.__traceback__
    while step is not None:
        file = Path(step.tb_frame.f_code.co_filename)
        if "harvester" in file.parts:
            at = f"{file.name}:{step.tb_lineno}"
        step = step.tb_next
    return type(error).__name__, at
