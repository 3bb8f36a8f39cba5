"""Settings that name a place. The text is checked before a path is made of it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from harvester.place import find_place_problem


def _check_local(value: Any) -> Any:
    """Refuse a text that is not a path of this machine; a ``Path`` was checked before."""
    problem = find_place_problem(value) if isinstance(value, str) else None
    if problem is not None:
        raise ValueError(problem)
    return value


def _check_parts(value: str) -> str:
    problem = find_place_problem(value, buckets=True, pipe=True)
    if problem is not None:
        raise ValueError(problem)
    return value


LocalPath = Annotated[Path, BeforeValidator(_check_local)]
PartsPlace = Annotated[str, AfterValidator(_check_parts)]
