"""Settings that name a place: checked as text, before a path is made of it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from harvester.place import refusal


def _local(value: Any) -> Any:
    """Refuse what names no file of this machine; a ``Path`` was checked where it came in."""
    problem = refusal(value) if isinstance(value, str) else None
    if problem is not None:
        raise ValueError(problem)
    return value


def _parts(value: str) -> str:
    problem = refusal(value, buckets=True, pipe=True)
    if problem is not None:
        raise ValueError(problem)
    return value


LocalPath = Annotated[Path, BeforeValidator(_local)]
PartsPlace = Annotated[str, AfterValidator(_parts)]
