"""Checks settings that name a place, before the text becomes a path."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from harvester.place import find_place_problem


def _check_local(value: Any) -> Any:
    """Refuse a text that is not a path on this machine; a ``Path`` has already been checked."""
    problem = find_place_problem(value) if isinstance(value, str) else None
    if problem is not None:
        raise ValueError(problem)
    return value


def _check_parts(value: str) -> str:
    problem = find_place_problem(value, buckets=True, pipe=True)
    if problem is not None:
        raise ValueError(problem)
    return value


def _check_own_parts(value: str) -> str:
    problem = find_place_problem(value, buckets=True)
    if problem is not None:
        raise ValueError(problem)
    return value


LocalPath = Annotated[Path, BeforeValidator(_check_local)]
PartsPlace = Annotated[str, AfterValidator(_check_parts)]
OwnPartsPlace = Annotated[str, AfterValidator(_check_own_parts)]
"""The place of one workspace, which is not a pipe."""
