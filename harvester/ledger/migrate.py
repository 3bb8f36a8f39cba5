"""Upgrades a ledger that other processes may use at the same time."""

from collections.abc import Sequence
from dataclasses import dataclass

from harvester.clock import Clock
from harvester.ledger.database import Database
from harvester.ledger.migrations import apply_contract_phases, apply_expand_phases
from harvester.place import LedgerLocation


@dataclass(frozen=True, slots=True)
class Migration:
    """What was changed in a ledger: its schemas before and after it.

    ``contracted`` are the steps whose contract phase was applied. ``waits_for`` are processes of earlier versions:
    while they run, the remaining contract phases cannot be applied.
    """

    schema_before: int
    schema: int
    contracted: Sequence[int]
    waits_for: Sequence[str]


async def migrate(location: LedgerLocation, *, clock: Clock) -> Migration:
    """See ``Ledger.migrate``. A kill leaves the ledger as it was before or after one of the two transactions."""
    database = Database(location, clock)
    try:
        # Other transactions may hold a table longer than a migration waits for it, so it is tried a few times.
        database.repeat_transactions()
        before, after = await database.write(apply_expand_phases, database.list_living)
        applied, waits_for = await database.write(apply_contract_phases, database.list_living)
        return Migration(before, after, applied, waits_for)
    finally:
        await database.close()
