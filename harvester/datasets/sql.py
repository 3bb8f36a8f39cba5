"""What every query needs: bounds on memory and threads, and quoting."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

THREADS = min(4, os.cpu_count() or 1)


def bound(connection: Any, memory_limit_mb: int, temp_directory: Path) -> None:
    """Keep a connection within a limit; what does not fit is put on disk for a while."""
    connection.execute(f"SET memory_limit = '{memory_limit_mb}MB'")
    connection.execute(f"SET temp_directory = {text(str(temp_directory))}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET threads = {THREADS}")


def one_file(path: Path) -> str:
    """Name a file to DuckDB, which takes ``*``, ``?`` and ``[`` for a pattern of many files."""
    # Behind a backslash DuckDB knows no way to spell them, so that such a name stays as it is.
    return str(path) if "\\" in str(path) else glob.escape(str(path))


def text(value: str) -> str:
    """Quote a text for SQL."""
    return "'" + value.replace("'", "''") + "'"


def quoted(value: str) -> str:
    """Quote a name for SQL."""
    return '"' + value.replace('"', '""') + '"'


def texts(values: Iterable[str]) -> str:
    """Quote texts for SQL, as a list."""
    return "[" + ", ".join(text(value) for value in values) + "]"
