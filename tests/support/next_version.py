"""The code of a next version: its ledger has one more step, with an expand and a contract phase."""

from collections.abc import Iterator
from contextlib import contextmanager

from harvester.ledger.steps import STEPS, Step, get_newest_schema

SCHEMA = get_newest_schema()
NEXT_SCHEMA = SCHEMA + 1

NEXT_VERSION = "NEXT_VERSION"
"""A variable of a warm process that makes it one of the next version."""

_STEP = Step(
    expand=("ALTER TABLE pair ADD COLUMN next_version INTEGER NOT NULL DEFAULT 0",),
    contract=("DROP INDEX pair_deferred",),
)


def become_next_version() -> None:
    """Make this process one of the next version, from now on."""
    STEPS[NEXT_SCHEMA] = _STEP


@contextmanager
def next_version() -> Iterator[None]:
    """Be the next version for a while. Ledgers that were opened before stay those of this version."""
    become_next_version()
    try:
        yield
    finally:
        del STEPS[NEXT_SCHEMA]
