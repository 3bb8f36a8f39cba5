"""Limits memory and threads, and quotes names and texts, for every query."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

THREADS = min(4, os.cpu_count() or 1)


def limit_memory(connection: Any, memory_limit_mb: int, temp_directory: Path) -> None:
    """Limit a connection's memory; what exceeds the limit goes to temporary files."""
    connection.execute(f"SET memory_limit = '{memory_limit_mb}MB'")
    connection.execute(f"SET temp_directory = {quote_text(str(temp_directory))}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET threads = {THREADS}")


def escape_path(path: Path) -> str:
    """Escape a path for DuckDB, which treats ``*``, ``?`` and ``[`` as a pattern."""
    # DuckDB cannot escape them in a path that contains a backslash, so this path stays unchanged.
    return str(path) if "\\" in str(path) else glob.escape(str(path))


def quote_text(value: str) -> str:
    """Quote a text for SQL."""
    return "'" + value.replace("'", "''") + "'"


def quote_name(value: str) -> str:
    """Quote a name for SQL."""
    return '"' + value.replace('"', '""') + '"'


def quote_texts(values: Iterable[str]) -> str:
    """Quote texts for SQL, as a list."""
    return "[" + ", ".join(quote_text(value) for value in values) + "]"
