"""Describes unexpected errors by type and place, without their text, which may contain anything."""

from pathlib import Path


def bug_of(error: BaseException) -> tuple[str, str]:
    """Return an error's type and the innermost place in our code that it passed, such as ``files.py:12``."""
    at, step = "an unknown place", error.__traceback__
    while step is not None:
        file = Path(step.tb_frame.f_code.co_filename)
        if "harvester" in file.parts:
            at = f"{file.name}:{step.tb_lineno}"
        step = step.tb_next
    return type(error).__name__, at
