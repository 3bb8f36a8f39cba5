"""DuckDB's extension httpfs, which reads object stores."""

import os
from pathlib import Path

import pytest


def find_httpfs() -> Path:
    """Return the folder of DuckDB with its extension httpfs, which needs its own version."""
    folder = Path(__file__).parent.parent.parent.parent / ".httpfs"
    missing = f"{folder.name} is missing: pip install --target .httpfs duckdb-extension-httpfs"
    if not folder.is_dir() and os.environ.get("CI"):
        pytest.fail(f"{missing}, and CI must not skip", pytrace=False)
    if not folder.is_dir():
        pytest.skip(missing)
    return folder
