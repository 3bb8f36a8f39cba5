"""The ledger: what is due, leased, sealed and stored. The only package that imports SQLAlchemy.

Other rooms import from this package, never from its modules.
"""

from harvester.ledger.books import StoredPart
from harvester.ledger.braze_time import ClockDifference
from harvester.ledger.database import LEASE_SECONDS
from harvester.ledger.enqueue import EnqueueResult
from harvester.ledger.leases import SealedBatch
from harvester.ledger.ledger import Ledger
from harvester.ledger.outlook import DayOfDeadlines, Outlook, Rejection
from harvester.ledger.reports import LedgerStatus
from harvester.ledger.sqlite import copy as copy_ledger

__all__ = [
    "LEASE_SECONDS",
    "ClockDifference",
    "DayOfDeadlines",
    "EnqueueResult",
    "Ledger",
    "LedgerStatus",
    "Outlook",
    "Rejection",
    "SealedBatch",
    "StoredPart",
    "copy_ledger",
]
