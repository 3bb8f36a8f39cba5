"""Checks settings that name a place, before the text becomes a path."""

import os.path
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from harvester.model import OWN_FOLDERS, is_in_object_store
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


def find_nested(places: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return each place inside another one's own folders, with the other place and the folder.

    Symbolic links are not followed: a folder on a disk that does not respond would delay every reload.
    """
    by_segments = {_split(each): each for each in places}
    return [
        (place, by_segments[segments[:depth]], folder)
        for segments, place in by_segments.items()
        for depth, folder in enumerate(segments)
        if folder in OWN_FOLDERS and segments[:depth] in by_segments
    ]


def _split(place: str) -> tuple[str, ...]:
    """Return the segments of a place's path, normalised."""
    path = place if is_in_object_store(place) else os.path.abspath(place)  # noqa: PTH100 - resolve follows links
    return tuple(path.rstrip("/").split("/"))
