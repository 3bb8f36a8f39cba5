"""Reads a ledger for commands, web pages, loaders and other packages."""

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harvester.books import Books
from harvester.ledger import books, counts, datasets, due, failures, outlook, plans, sends, serving, stored_parts
from harvester.ledger.database import Database, Transaction
from harvester.ledger.due import DueCount
from harvester.ledger.failures import FailedPair
from harvester.ledger.outlook import Outlook, Rejection
from harvester.ledger.sends import SendSearch
from harvester.ledger.serving import Replicas
from harvester.ledger.stored_parts import PartsPage, PrunedParts
from harvester.model import Pair
from harvester.schedule import ReadingPlan


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """The state of a ledger at one moment.

    ``halted`` has the cause for each halted workspace, ``waiting`` the number of sealed batches for each place.
    """

    workspaces: Mapping[str, Books]
    readings: Mapping[str, int]
    batches: Mapping[str, int]
    batches_without_part: int
    halted: Mapping[str, str]
    at_risk: Mapping[str, int]
    waiting: Mapping[str, int]
    rejections: Sequence[Rejection]
    replicas: Replicas


class Reports:
    """Reads the ledger on a separate connection, concurrently with writes. Every method raises ``LedgerError``.

    Each method reads one consistent state, which includes every transaction that was complete when it was called.
    """

    def __init__(self, database: Database) -> None:
        """Read from ``database``."""
        self._database = database

    async def get_status(self, *, rejections: int) -> LedgerStatus:
        """Return the state of the ledger, with the latest ``rejections``."""
        return await self._database.report(_get_status, rejections=rejections)

    async def get_books(self) -> Books:
        """Count all pairs by state and outcome."""
        return await self._database.report(books.get_books)

    async def get_books_by_workspace(self) -> dict[str, Books]:
        """Count the pairs of each workspace by state and outcome."""
        return await self._database.report(books.get_books_by_workspace)

    async def get_outlooks(self, workspaces: Sequence[str] = ()) -> dict[str, Outlook]:
        """Return open readings by state, and the deadlines in the days to come.

        The result has these workspaces, and each other one that has open pairs.
        """
        return await self._database.report(outlook.get_outlooks, workspaces)

    async def get_plan(self, workspace: str) -> ReadingPlan:
        """Return the plan that a workspace's readings follow."""
        return await self._database.report(plans.get_plan, workspace)

    async def get_last_captures(self) -> dict[str, float]:
        """Return the time of each workspace's last capture, among the latest outcomes."""
        return await self._database.report(outlook.get_last_captures)

    async def get_sealed_bytes(self) -> int:
        """Return the total size of the parts that wait to be stored."""
        return await self._database.report(outlook.get_sealed_bytes)

    async def list_planned(self, workspace: str, *, limit: int) -> list[DueCount]:
        """List the next due times of a workspace with the number of readings, the earliest first; 0 stands for now."""
        return await self._database.report(due.list_planned, workspace, limit=limit)

    async def count_pending(self) -> dict[str, int]:
        """Count the open pairs of each workspace."""
        return await self._database.report(books.count_pending)

    async def has_open_pairs(self, workspace: str) -> bool:
        """Return whether a workspace has open pairs."""
        return await self._database.report(books.has_open_pairs, workspace)

    async def list_unfinished_workspaces(self) -> list[str]:
        """List the workspaces that have open pairs, or expired ones, which a wrong clock may have ended."""
        return await self._database.report(books.list_unfinished_workspaces)

    async def count_planned(self, *, leased: bool = False) -> int:
        """Count the pairs that wait for a planned reading, and with ``leased`` those that a process is reading."""
        return await self._database.report(books.count_planned, leased=leased)

    async def count_expired(self) -> dict[str, int]:
        """Count the expired pairs of each workspace."""
        return await self._database.report(books.count_expired)

    async def count_seemingly_expired(self) -> int:
        """Count the open pairs that have expired according to an unconfirmed time."""
        return await self._database.report(books.count_seemingly_expired)

    async def count_readings(self) -> dict[str, int]:
        """Count readings by outcome; ``pending`` are the open ones."""
        return await self._database.report(books.count_readings)

    async def count_batches(self) -> dict[str, int]:
        """Count batches by state."""
        return await self._database.report(books.count_batches)

    async def count_unstored_batches(self) -> dict[str, int]:
        """Count the batches that are not stored yet, by state."""
        return await self._database.report(outlook.count_unstored_batches)

    async def list_deadlines(self) -> "array[float]":
        """List the deadlines of all open pairs, the nearest first."""
        return await self._database.report(books.list_deadlines)

    async def list_halted(self) -> dict[str, tuple[str, float]]:
        """List the halted workspaces, each with its cause and the time of its halt."""
        return await self._database.report(books.list_halted)

    async def list_planned_workspaces(self) -> list[str]:
        """List the workspaces that have a plan: those that a service serves."""
        return await self._database.report(plans.list_planned_workspaces)

    async def get_replicas(self) -> Replicas:
        """Return which processes serve workspaces, and which workspaces they leave unserved."""
        return await self._database.report(serving.get_replicas)

    async def list_parts(self, *, after: int, limit: int, dataset_id: str | None = None) -> PartsPage:
        """Return a page of stored parts in the order of storing, after a bookmark; of all datasets, or of one."""
        return await self._database.report(stored_parts.list_parts, after=after, limit=limit, dataset_id=dataset_id)

    async def list_newest_parts(self, dataset_id: str, *, limit: int) -> list[str]:
        """List the names of the parts that were stored last in one place's dataset, the newest first."""
        return await self._database.report(stored_parts.list_newest_parts, dataset_id, limit=limit)

    async def find_pruned_parts(self, dataset_id: str) -> PrunedParts | None:
        """Return the pruned parts of one place's dataset; None if none was pruned."""
        return await self._database.report(stored_parts.find_pruned, dataset_id=dataset_id)

    async def list_rejections(self, *, limit: int) -> list[Rejection]:
        """List the pairs that were rejected last and still are, each once, the newest first."""
        return await self._database.report(outlook.list_rejections, limit=limit)

    async def list_failed(self, outcome: str, reason: str | None, *, after: int, limit: int) -> list[FailedPair]:
        """List pairs that were rejected for a reason, or have expired (without one), after the ``order`` of one."""
        return await self._database.report(failures.list_failed, outcome, reason, after=after, limit=limit)

    async def find_wrong_counts(self) -> list[str]:
        """Compare the counts that the ledger keeps with its pairs; returns each difference. Reads every pair."""
        return await self._database.report(counts.find_wrong_counts)

    async def find(self, pairs: Sequence[Pair]) -> dict[Pair, str]:
        """Return for each known pair whether it is pending, captured, rejected or expired."""
        return await self._database.report(books.find, pairs)

    async def find_sends(
        self, send_id: str, *, campaign_id: str | None = None, workspaces: Collection[str] = (), limit: int
    ) -> SendSearch:
        """Find what became of the pairs with a send id, in all workspaces or in these."""
        return await self._database.report(
            sends.find_sends, send_id, campaign_id=campaign_id, workspaces=workspaces, limit=limit
        )

    async def find_dataset(self, place: str) -> str | None:
        """Return the id of the dataset of a place; None if it was never reached, or its dataset is elsewhere now."""
        return await self._database.report(datasets.find_dataset, place)

    async def count_stored_parts(self, dataset_id: str) -> int:
        """Count the parts that were stored in the place of a dataset, including those that were pruned."""
        return await self._database.report(stored_parts.count_stored_parts, dataset_id)

    async def list_places(self) -> dict[str, str]:
        """Return the place where each dataset was found last."""
        return await self._database.report(datasets.list_places)


def _get_status(tx: Transaction, *, rejections: int) -> LedgerStatus:
    return LedgerStatus(
        workspaces=books.get_books_by_workspace(tx),
        readings=books.count_readings(tx),
        batches=books.count_batches(tx),
        batches_without_part=books.count_batches_without_part(tx),
        halted={name: reason for name, (reason, _) in books.list_halted(tx).items()},
        at_risk={name: each.at_risk for name, each in outlook.get_outlooks(tx).items()},
        waiting=books.count_waiting(tx),
        rejections=outlook.list_rejections(tx, limit=rejections),
        replicas=serving.get_replicas(tx),
    )
