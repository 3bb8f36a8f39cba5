"""What makes the start of each worker process short: it imports and collects all tests before it runs its first."""

import atexit
import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvester.cli.startup import OBJECTS_BEFORE_COLLECTION, without_collection

TOP = Path(__file__).parent.parent.parent


def allow_cache() -> None:
    """Let this process and those that it starts cache compiled modules, even where Python caches none.

    Containers often forbid the cache to keep their images small, but then each of hundreds of processes compiles again.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def runs_whole_suite(config: pytest.Config) -> bool:
    """Return whether pytest was given all tests."""
    return [Path(each).resolve() for each in config.args] == [TOP / "tests"]


def import_share(config: pytest.Config) -> None:
    """Import every n-th test module in a worker that will collect all, so that the others find it in the cache."""
    if not hasattr(config, "workerinput") or not runs_whole_suite(config):
        return
    number, count = int(config.workerinput["workerid"].removeprefix("gw")), config.workerinput["workercount"]
    files = sorted((TOP / "tests").rglob("test_*.py"), key=lambda path: (-path.stat().st_size, path))
    for path in files[number::count]:
        with contextlib.suppress(Exception):  # the collection will report it
            importlib.import_module(".".join(path.relative_to(TOP).with_suffix("").parts))


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect no garbage, and exclude all that exists at the end: modules and tests stay until the process ends."""
    atexit.register(gc.unfreeze)  # DuckDB reports what is not freed at the end
    gc.set_threshold(OBJECTS_BEFORE_COLLECTION)  # as in the commands: with Python's default it is a tenth of all work
    with without_collection():
        yield
