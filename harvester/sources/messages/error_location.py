"""Describes an unexpected error by its type and location. Its text is left out, because it may contain secrets."""

from pathlib import Path


def locate_error(error: BaseException) -> tuple[str, str]:
    """Return the type of an error, and the last line of this package in its traceback, such as ``input.py:12``."""
    location, frame = "an unknown location", error.__traceback__
    while frame is not None:
        file = Path(frame.tb_frame.f_code.co_filename)
        if "harvester" in file.parts:
            location = f"{file.name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return type(error).__name__, location
