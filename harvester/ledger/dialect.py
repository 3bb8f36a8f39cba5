"""Defines the operations that differ between databases. All other statements are the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection


@dataclass(frozen=True, slots=True)
class Dialect:
    """The operations of a database that SQLAlchemy does not abstract."""

    insert: Callable[[Any], Any]
    """An ``INSERT`` that has ``on_conflict_do_nothing``."""

    json_elements: Callable[..., Any]
    """A table of the elements of a JSON array."""

    json_row: Callable[..., Any]
    """A JSON array of columns."""

    json_rows: Callable[..., Any]
    """An aggregate: one JSON array of all rows."""

    continue_ids: Callable[[Connection], None]
    """Let the database choose the ids of new rows after those that were added with their ids."""

    exact_float: Callable[[ColumnElement[Any]], ColumnElement[Any]]
    """A float as JSON, or as text, with every digit."""
